# SPDX-License-Identifier: Apache-2.0
"""Bodies of a few words, read whole."""

import asyncio

from aiohttp.web import BaseRequest

from gpuwarden.gateway.body import ask_for_body, chunks_of
from gpuwarden.gateway.errors import ApiError

LIMIT_BYTES = 4096
SECONDS = 10.0


async def read_small(request: BaseRequest) -> bytes:
    """The body, if it is a small one. Raises ApiError 400, 408 or 413."""
    if (request.content_length or 0) > LIMIT_BYTES:
        raise too_large()
    ask_for_body(request)
    body = b""
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in chunks_of(request):
                body += chunk
                if len(body) > LIMIT_BYTES:
                    raise too_large()
    except TimeoutError:
        text = f"the body did not come within {SECONDS:g} s"
        raise ApiError("request_timeout", text, param="body") from None
    return body


def too_large() -> ApiError:
    """The error for a body that is none of a few words."""
    return ApiError("body_too_large", f"the body may have {LIMIT_BYTES} bytes here", param="body")
