"""Text of unknown origin, made fit to be shown."""


def one_line(text: str) -> str:
    """The text with everything escaped that would break a line or repaint a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
