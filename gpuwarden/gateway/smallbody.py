"""Bodies of a few words, read whole."""

import asyncio

from aiohttp.web import BaseRequest

from gpuwarden.gateway.body import chunks_of
from gpuwarden.gateway.errors import ApiError

LIMIT_BYTES = 4096
SECONDS = 10.0


async def read_small(request: BaseRequest) -> bytes:
    """The body, if it is a small one. Raises ApiError 400, 408 or 413."""
    body = b""
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in chunks_of(request):
                body += chunk
                if len(body) > LIMIT_BYTES:
                    text = f"the body may have {LIMIT_BYTES} bytes here"
                    raise ApiError("body_too_large", text, param="body")
    except TimeoutError:
        text = f"the body did not come within {SECONDS:g} s"
        raise ApiError("request_timeout", text, param="body") from None
    return body
