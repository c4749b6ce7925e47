# SPDX-License-Identifier: Apache-2.0
"""URLs that a hook may POST to: anybody's but our own front door's. Pure: no name is looked up."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import urlsplit


class Door(NamedTuple):
    """A TCP address that somebody listens on."""

    host: str
    port: int


FRONT_DOOR = Door("127.0.0.1", 7860)  # as medgemma-gateway.socket is shipped
FRONT_DOOR_REFUSAL = (
    "this is our own front door, which follows the cards' states already: a hook there would only "
    "have one program of ours overrule the other"
)
DEFAULT_PORTS = {"http": 80, "https": 443}


def check_post_url(text: str) -> str:
    """The URL itself, if a hook can POST to it and it isn't our own front door as it is shipped.

    :raises ValueError: it can't, or it is.
    """
    _check_url(text)
    if leads_to(text, FRONT_DOOR):
        raise ValueError(FRONT_DOOR_REFUSAL)
    return text


def leads_to(url: str, door: Door) -> bool:
    """Whether a checked URL leads to this address of this node, by whatever name."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if (parts.port or DEFAULT_PORTS[parts.scheme]) != door.port:
        return False
    if _is_this_node(host):
        return _is_this_node(door.host)
    address = _address(host)
    return address is not None and address == _address(door.host)


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
    if "%" in url.hostname:
        raise ValueError("a host's name has no % in it")
    if url.username is not None or url.password is not None:
        raise ValueError("a name and a password have no place in a file that everybody can read")
    if url.fragment:
        raise ValueError('what stands after "#" is never sent')
