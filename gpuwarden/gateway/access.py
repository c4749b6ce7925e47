"""Who may do what only the node's administrator may: list and delete what others have sent."""

import hmac
import os
from pathlib import Path

from aiohttp.web import BaseRequest

from gpuwarden.gateway.errors import ApiError

CREDENTIAL = "gpuwarden-api-key"


def require_key(request: BaseRequest) -> None:
    """Pass a caller with the API key, or by the socket that root alone can open.

    :raises ApiError: 401 where the key is missing or wrong; 403 where none is set up.
    """
    if not isinstance(request.transport and request.transport.get_extra_info("sockname"), tuple):
        return  # a UNIX socket: its file's mode says who may
    expected = api_key()
    if expected is None:
        raise ApiError(
            "forbidden",
            "no API key is set up on this node (credential gpuwarden-api-key); as root on the"
            " node: gpuwarden jobs",
        )
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
    if not hmac.compare_digest(given, expected):
        raise ApiError("authentication_required", "send Authorization: Bearer API-KEY")


def api_key() -> bytes | None:
    """The node's API key as systemd hands it over; None where there is none."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder) / CREDENTIAL
    return path.read_bytes().strip() or None if folder and path.is_file() else None
