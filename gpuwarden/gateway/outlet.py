# SPDX-License-Identifier: Apache-2.0
"""Sends a large result to its caller: the kernel moves it from its buffer to the socket.

What comes before and after it, an answer's envelope, is ours; the result itself is not looked at.
"""

import asyncio
import os
import secrets
from collections.abc import Mapping
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse

from gpuwarden.gateway.http import as_json
from gpuwarden.gateway.outputs import Output, OutputBuffer
from gpuwarden.gateway.takeover import was_taken_over
from gpuwarden.worker.outputs import JSON_TYPE

READER_SECONDS = 30.0  # for a client to take a small result, and
READER_BYTES_PER_SECOND = 1 << 20  # for a large one as much longer: it keeps others from theirs
MARK = secrets.token_hex(16)  # stands in an envelope where the result belongs


async def send_within(
    request: BaseRequest,
    envelope: dict[str, Any],
    output: Output,
    headers: Mapping[str, str] | None = None,
) -> StreamResponse:
    """Answer with JSON that has the result where ``MARK`` stands. Raises ConnectionError."""
    before, _, after = as_json(envelope).partition(as_json(MARK))
    return await send(request, JSON_TYPE, output, before, after, headers)


async def send(
    request: BaseRequest,
    media_type: str,
    output: Output,
    before: bytes = b"",
    after: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> StreamResponse:
    """Answer with ``output`` between two texts.

    :raises ConnectionError: the client left, or reads too slowly.
    """
    response = StreamResponse(headers=headers)
    response.content_type = media_type
    response.content_length = len(before) + output.length + len(after)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    if was_taken_over(request) or not request.content.is_eof():
        response.force_close()
    seconds = READER_SECONDS + output.length / READER_BYTES_PER_SECOND
    try:
        async with asyncio.timeout(seconds):
            await response.prepare(request)
            if request.method != "HEAD":
                await write(request, response, (before, output, after))
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client reads too slowly") from None
    return response


async def write(
    request: BaseRequest, response: StreamResponse, parts: tuple[bytes, Output, bytes]
) -> None:
    """Send the body. Raises ConnectionError."""
    before, output, after = parts
    await response.write(before)
    if output.buffer is not None:
        await send_buffer(request, output.buffer, output.length)
    else:
        await response.write(output.inline)
    await response.write(after)


async def send_buffer(request: BaseRequest, buffer: OutputBuffer, length: int) -> None:
    """Have the kernel send it. Raises ConnectionError."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client left")
    loop = asyncio.get_running_loop()
    with os.fdopen(os.dup(buffer.descriptor), "rb", buffering=0) as file:
        try:
            sent = await loop.sendfile(transport, file, 0, length, fallback=False)
        except asyncio.SendfileNotAvailableError:
            # What asyncio makes of any failure before the first byte. From shared memory into a
            # socket the kernel can always send: it is the connection that is gone.
            raise ConnectionResetError("the client left") from None
    if sent != length:
        raise ConnectionResetError("the client left")
