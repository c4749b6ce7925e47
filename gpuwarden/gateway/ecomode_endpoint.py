# SPDX-License-Identifier: Apache-2.0
"""``/api/thermal_mode``: the form that the articles use, for programs that know the room."""

import json
import math
from urllib.parse import parse_qs

from aiohttp.web import BaseRequest, Response

from gpuwarden.gateway.admission import check_encoding, check_query
from gpuwarden.gateway.ecomode import EcoMode
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.http import json_response
from gpuwarden.gateway.multipart import media_type_of
from gpuwarden.gateway.smallbody import read_small

MODES = ("eco", "normal")
FORM = "application/x-www-form-urlencoded"


class EcoModeEndpoint:
    """Shows the mode, and takes orders."""

    def __init__(self, eco: EcoMode) -> None:
        self._eco = eco

    async def show(self, request: BaseRequest) -> Response:
        """The mode."""
        left = self._eco.seconds_left
        content = {
            "mode": "normal" if left is None else "eco",
            "seconds_left": None if left is None else math.ceil(left),
            "limited_by_heat": self._eco.limited_by_heat,
        }
        return json_response(content)

    async def order(self, request: BaseRequest) -> Response:
        """Begin, extend or end eco."""
        check_query(request, ("mode",))
        check_encoding(request)
        modes = request.query.getall("mode", []) + modes_of(request, await read_small(request))
        if len(modes) != 1 or modes[0] not in MODES:
            raise ApiError("invalid_request", "mode is eco or normal, once", param="mode")
        self._eco.order(modes[0])
        return await self.show(request)


def modes_of(request: BaseRequest, body: bytes) -> list[str]:
    """What a body says of the mode: a form or a JSON object. Raises ApiError."""
    if not body:
        return []
    if media_type_of(request.headers.get("Content-Type", FORM)) == "application/json":
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or set(document) != {"mode"}:
            raise ApiError("invalid_request", 'the body is {"mode": "eco"}', param="body")
        return [str(document["mode"])]
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=None)
    if set(fields) != {"mode"}:
        raise ApiError("invalid_request", "the body is mode=eco", param="body")
    return fields["mode"]
