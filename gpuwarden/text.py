# SPDX-License-Identifier: Apache-2.0
"""Text of unknown origin, made fit to be shown; moments as people read them."""

from datetime import UTC, datetime


def one_line(text: str) -> str:
    """The text with everything escaped that would break a line or repaint a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def utc(unix_microseconds: int) -> str:
    """A moment, such as ``2026-11-21 08:30:00 UTC``."""
    return f"{datetime.fromtimestamp(unix_microseconds / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
