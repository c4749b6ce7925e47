"""Written forms of values: sizes, engines, cards, URLs. Each refusal says what is wrong.

The functions raise ValueError with a short reason; who wrote the value and where is added above.
"""

import re
import socket
from collections.abc import Collection
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
BUILT_IN_ENGINES = ("echo", "imagestats")

FRONT_DOOR_PORT = 7860  # as medgemma-gateway.socket is shipped
FRONT_DOOR_REFUSAL = (
    "this is our own front door, which follows the cards' states already: a hook there would only "
    "have one program of ours overrule the other"
)
DEFAULT_PORTS = {"http": 80, "https": 443}

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


def check_post_url(text: str) -> str:
    """The URL itself, if a hook can POST to it and it isn't our own front door as it is shipped.

    :raises ValueError: it can't, or it is.
    """
    _check_url(text)
    if leads_here(text, (FRONT_DOOR_PORT,)):
        raise ValueError(FRONT_DOOR_REFUSAL)
    return text


def leads_here(url: str, ports: Collection[int]) -> bool:
    """Whether a checked URL leads to one of these TCP ports of this node."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    return port in ports and _is_this_node(parts.hostname or "")


def _is_this_node(host: str) -> bool:
    """Whether a URL's host is the node itself by any spelling of loopback or of "any address"."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and (address.is_loopback or address.is_unspecified)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name.split("%", 1)[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(name))  # the old short forms: 127.1, 0x7f000001
    except OSError:
        return None


def _check_url(text: str) -> None:
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("a URL is printable ASCII without spaces (write them as %20)")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if url.scheme not in DEFAULT_PORTS:
        raise ValueError("not a URL that begins with http:// or https://")
    if not url.hostname or port == 0:
        raise ValueError("it names no host" if not url.hostname else "no program has port 0")
    if url.username is not None or url.password is not None:
        raise ValueError("a name and a password have no place in a file that everybody can read")
    if url.fragment:
        raise ValueError('what stands after "#" is never sent')
