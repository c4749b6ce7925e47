# SPDX-License-Identifier: Apache-2.0
"""Who may ask: programs on this node, and elsewhere who has the API key or came by our proxy.

Pages in a browser never may, whatever address they use, and neither may names that lead here
without being ours (a browser's name can be made to lead to loopback).
"""

import functools
import hashlib
import hmac
import ipaddress
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.web import BaseRequest

from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.settings import GatewaySettings
from gpuwarden.systemd.events import Event, tell

CREDENTIAL = "gpuwarden-api-key"
KEY_LEAST_CHARACTERS = 16
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
# What a proxy says of a client whose certificate it has verified (nginx: $ssl_client_verify).
CERTIFICATE_HEADER, VERIFIED = "X-SSL-Client-Verify", "SUCCESS"
# Whoever sends one of these passes on what somebody else has asked.
FORWARDED_HEADERS = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    CERTIFICATE_HEADER,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Access:
    """What lets a caller in.

    :ivar keys: digests of the API keys.
    :ivar host_names: names of this node that a Host header may have, beside loopback's.
    :ivar proxies: whose word about a client's certificate counts.
    """

    keys: tuple[bytes, ...] = ()
    host_names: tuple[str, ...] = ()
    proxies: tuple[Network, ...] = ()


ACCESS = web.RequestKey("access", Access)


def check_caller(request: BaseRequest, access: Access) -> None:
    """Let a caller in, or raise ApiError: 401 without the key, 403 for who can't be let in."""
    request[ACCESS] = access
    check_no_browser(request)
    address = own_address(request)
    if address is None:
        return  # a UNIX socket: its file's mode says who may
    local = is_loopback(address)
    names = (*LOOPBACK_NAMES, *access.host_names, bracketed(address))
    if not all(host_name(host) in names for host in hosts_of(request)):
        known = ", ".join(dict.fromkeys(names))
        text = f"Host must be one of {known}; [gateway] host_names adds to them"
        raise ApiError("forbidden", text, param="Host")
    if local and not any(name in request.headers for name in FORWARDED_HEADERS):
        return
    if not is_from_proxy(request, access):
        check_key(request, access)


def hosts_of(request: BaseRequest) -> tuple[str, ...]:
    """Who the request says it is for: its Host header, and its target where that is a whole URL."""
    host, target = request.headers.get("Host", ""), request.raw_path
    if target.startswith("/"):
        return (host,)
    try:
        return host, urlsplit(target).netloc or host
    except ValueError:
        return host, target  # nobody's name


def require_key(request: BaseRequest) -> None:
    """Pass a caller with the API key, or by the socket that root alone can open.

    :raises ApiError: 401 where the key is missing or wrong; 403 where none is set up.
    """
    if own_address(request) is not None:
        check_key(request, request[ACCESS])


def check_no_browser(request: BaseRequest) -> None:
    """Refuse pages: a page on this node is no client. Raises ApiError."""
    if "Origin" in request.headers:
        raise ApiError("forbidden", "pages in a browser may not call this service", param="Origin")
    if request.headers.get("Sec-Fetch-Site", "none") != "none":
        text = "pages in a browser may not call this service"
        raise ApiError("forbidden", text, param="Sec-Fetch-Site")


def check_key(request: BaseRequest, access: Access) -> None:
    """Raises ApiError unless the request has an API key of this node."""
    if not access.keys:
        raise ApiError(
            "forbidden",
            f"only loopback is served: no API key is set up on this node (credential {CREDENTIAL})",
            param="Authorization",
        )
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    digest = digest_of(given.strip().encode("utf-8", "surrogateescape"))
    # All are compared, so that the time says nothing.
    matches = [hmac.compare_digest(digest, key) for key in access.keys]
    if scheme.lower() != "bearer" or not any(matches):
        raise ApiError(
            "authentication_required",
            "send Authorization: Bearer and the API key",
            param="Authorization",
        )


def is_from_proxy(request: BaseRequest, access: Access) -> bool:
    """Whether a proxy that we trust says that it has verified the client's certificate."""
    values = request.headers.getall(CERTIFICATE_HEADER, [])
    peer: Any = request.transport and request.transport.get_extra_info("peername")
    if values != [VERIFIED] or not isinstance(peer, tuple):
        return False
    address = ipaddress.ip_address(unmapped(str(peer[0])))
    return any(address in network for network in access.proxies)


def own_address(request: BaseRequest) -> str | None:
    """The address of ours that the connection came to; None for a UNIX socket.

    :raises ConnectionResetError: the client has left: nobody knows any more where it came in.
    """
    if request.transport is None:
        raise ConnectionResetError("the client left")
    name: Any = request.transport.get_extra_info("sockname")
    return unmapped(str(name[0])) if isinstance(name, tuple) else None


@functools.lru_cache(maxsize=64)
def unmapped(address: str) -> str:
    """An address without its scope; of IPv4 where a socket for both families tells it as IPv6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


@functools.lru_cache(maxsize=64)
def is_loopback(address: str) -> bool:
    """Whether one of our own listening addresses is reached from this node alone."""
    return ipaddress.ip_address(address).is_loopback


def bracketed(address: str) -> str:
    """An address as a Host header has it."""
    return f"[{address}]" if ":" in address else address


@functools.lru_cache(maxsize=64)
def host_name(host: str) -> str:
    """The name in a Host header, without the port; an IPv6 address in its usual form."""
    name, separator, port = host.rpartition(":")
    if not separator or not (port.isdigit() or not port):
        name = host
    if name.startswith("[") and name.endswith("]"):
        try:
            return bracketed(str(ipaddress.IPv6Address(name[1:-1])))
        except ValueError:
            return name  # nobody's
    return name.lower()


def digest_of(key: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key).digest()


def read_keys(folder: str | None = None) -> tuple[bytes, ...]:
    """Digests of the API keys that systemd hands over, one a line; none where it hands none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "") if folder is None else folder
    path = Path(folder) / CREDENTIAL
    if not folder or not path.is_file():
        return ()
    keys = [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
    usable = [key for key in keys if len(key) >= KEY_LEAST_CHARACTERS]
    if len(usable) < max(1, len(keys)):
        tell(
            Event.API_KEY_REFUSED,
            f"credential {CREDENTIAL}: {len(keys) - len(usable)} of {len(keys)} keys are not used:"
            f" a key has {KEY_LEAST_CHARACTERS} characters or more, one key a line",
            logging.ERROR,
        )
    return tuple(digest_of(key) for key in usable)


def access_of(settings: GatewaySettings, keys: tuple[bytes, ...]) -> Access:
    """Who may ask, by the configuration and the keys that systemd handed over."""
    proxies = tuple(ipaddress.ip_network(address) for address in settings.proxy_addresses)
    return Access(keys, settings.host_names, proxies)
