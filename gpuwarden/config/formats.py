# SPDX-License-Identifier: Apache-2.0
"""Written forms of values: sizes, engines, cards' UUIDs. Each refusal says what is wrong.

The functions raise ValueError with a short reason; who wrote the value and where is added above.
"""

import re
from fractions import Fraction

SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
BUILT_IN_ENGINES = ("echo", "imagestats", "transformers", "command")

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SIZE = re.compile(r"(?P<number>[0-9]{1,18}(?:\.[0-9]{1,9})?) ?(?P<unit>[KMGT]?)(?P<iec>iB|B)?")
_LOOSE_SIZE = re.compile(r"\s*[0-9.]+\s*(?P<unit>[kmgtKMGT])[iI]?[bB]?\s*")
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_ENGINE = re.compile(rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*:{_IDENTIFIER}")


def parse_size(text: str) -> int:
    """Bytes of a size like ``16G``, ``512M``, ``1.5G`` or ``64KiB``; units are powers of 1024.

    :raises ValueError: not a size, or no whole number of bytes.
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match["iec"] == "B" and match["unit"]):
        raise ValueError(_size_hint(text))
    if match["iec"] == "iB" and not match["unit"]:
        raise ValueError('"iB" needs K, M, G or T before it')
    size = Fraction(match["number"]) * SIZE_UNITS[match["unit"]]
    if size.denominator != 1:
        raise ValueError("not a whole number of bytes")
    return int(size)


def _size_hint(text: str) -> str:
    loose = _LOOSE_SIZE.fullmatch(text)
    if loose is None:
        return "not a size"
    number = re.sub(r"[^0-9.]", "", text)
    return f'units are powers of 1024 and written K, M, G, T: "{number}{loose["unit"].upper()}"?'


def format_size(size_bytes: int) -> str:
    """The shortest exact form of a size: ``16G``, ``512M``, ``1000``."""
    for unit, factor in reversed(SIZE_UNITS.items()):
        if unit and size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def check_engine(text: str) -> str:
    """The engine name itself, if it is built in or of the form ``package.module:ClassName``.

    :raises ValueError: neither of them.
    """
    if text in BUILT_IN_ENGINES or _ENGINE.fullmatch(text):
        return text
    if ":" not in text:
        raise ValueError("no built-in engine has this name, and it has no :ClassName")
    raise ValueError("not of the form package.module:ClassName")


def check_card_uuid(text: str) -> str:
    """The UUID of a card itself, as NVML writes it: ``GPU-8f3a2b1c-…``.

    :raises ValueError: it isn't one; the text says what it looks like.
    """
    if text.startswith("GPU-") and _UUID.fullmatch(text[4:]):
        return text
    lower = text.lower()
    bare = lower.removeprefix("gpu-")
    if _UUID.fullmatch(bare):
        raise ValueError(f'did you mean "GPU-{bare}"?')
    if lower.startswith("mig-"):
        raise ValueError("this looks like a part of a card (MIG); a whole card's begins with GPU-")
    if text.isascii() and text.isdigit():
        raise ValueError("this looks like a card's index, which another card may have tomorrow")
    if re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", lower):
        raise ValueError("this looks like a PCI address")
    if lower.startswith("gpu-"):
        raise ValueError("this looks like a card's UUID that was cut short or mistyped")
    raise ValueError("this looks like no card's UUID")
