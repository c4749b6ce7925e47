# SPDX-License-Identifier: Apache-2.0
"""Receives a body where the worker will read it, and finds the image in it.

Up to 64 KiB it stays in memory and rides on the worker's frame. All else goes into a pooled buffer;
from 1 MiB on the socket is read straight into it. Nothing is ever decoded here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import BaseRequest, RequestPayloadError

from gpuwarden.gateway import takeover
from gpuwarden.gateway.admission import (
    IMAGE_TYPES,
    QUESTION_LIMIT_BYTES,
    REFERENCE,
    Upload,
    check_question,
    empty,
    question_too_long,
    second_question,
    too_large,
    unsupported,
)
from gpuwarden.gateway.buffers import Buffer, BufferPool, class_bytes
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.multipart import Part, broken, split
from gpuwarden.gateway.populate import populate
from gpuwarden.worker.frames import INLINE_LIMIT_BYTES

log = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REFERENCE_BYTES = len("gpuwarden://") + 32
TAKE_OVER_BYTES = 1 << 20  # below, the parser's copies cost less than a new connection


@dataclass(eq=False)
class StoredImage:
    """An image that was sent before: its id, and where it lies."""

    identifier: str
    media_type: str
    buffer: Buffer
    offset: int
    length: int

    @property
    def content(self) -> memoryview:
        """The image itself."""
        return self.buffer.view[self.offset : self.offset + self.length]


@dataclass(eq=False)
class Body:
    """A received body: in ``inline`` or in ``buffer``; the image lies at ``offset``.

    :ivar form: ``predict``: it is an image; ``chat``: it is OpenAI's JSON, unparsed.
    :ivar reference: the id of the image that stands for it, where a form's part says so.
    :ivar images: what it refers to, of the images that were sent before.
    :ivar fields: the texts of a multipart body's further parts.
    :ivar model: that a chat asks for, as far as it is certain without parsing; None: any.
    :ivar ticket: names a durable job's attempt to a later front door; a worker that loses this one
        hands its result over under it.
    """

    media_type: str
    question: str | None
    offset: int
    length: int
    inline: bytes = b""
    buffer: Buffer | None = None
    form: Literal["predict", "chat"] = "predict"
    reference: str | None = None
    images: tuple[StoredImage, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)
    ticket: str = ""
    model: str | None = None

    @property
    def image(self) -> memoryview:
        """The image itself, or the chat."""
        view = memoryview(self.inline) if self.buffer is None else self.buffer.view
        return view[self.offset : self.offset + self.length]

    def buffers(self) -> Sequence[Buffer]:
        """Every buffer that a worker needs for it."""
        own = () if self.buffer is None else (self.buffer,)
        return (*own, *(image.buffer for image in self.images)) if self.images else own


class Room:
    """The buffer that one body takes, if it takes one; its owner calls ``free`` in the end.

    :param limit_bytes: no body may be larger.
    :param claim: told of each growth of a body of unknown length, in bytes; may refuse it.
    """

    def __init__(self, pool: BufferPool, limit_bytes: int, claim: Callable[[int], None]) -> None:
        self.pool = pool
        self.limit_bytes = limit_bytes
        self.claim = claim
        self.buffer: Buffer | None = None

    def reserve(self, length: int) -> None:
        """Room for ``length`` bytes. Raises ApiError 429 when the pool has none."""
        if length > INLINE_LIMIT_BYTES:
            self.acquire(length)

    def acquire(self, length: int) -> None:
        """A buffer for ``length`` bytes, however few. Raises ApiError 429 when there is none."""
        self.buffer = self._acquire(length)

    def grow(self, received: int, needed: int) -> Buffer:
        """A larger buffer with what has been received so far (bodies of unknown length)."""
        if needed > self.limit_bytes:
            raise too_large(self.limit_bytes)
        if self.buffer is not None and needed <= self.buffer.size:
            self.buffer.used_bytes = max(self.buffer.used_bytes, needed)
            return self.buffer
        self.claim(class_bytes(needed))
        larger = self._acquire(needed)
        if self.buffer is not None:
            larger.view[:received] = self.buffer.view[:received]
            self.pool.release(self.buffer)
        self.buffer = larger
        return larger

    def free(self) -> None:
        """Give the buffer back."""
        if self.buffer is not None:
            self.pool.release(self.buffer)
            self.buffer = None

    def _acquire(self, length: int) -> Buffer:
        try:
            buffer = self.pool.acquire(length)
        except OSError as error:
            log.error("a buffer of %d bytes can't be had: %s", class_bytes(length), error)
            raise ApiError(
                "unavailable", "no memory for the body", retry_after_seconds=5
            ) from error
        if buffer is None:
            raise ApiError(
                "queue_full", "no room for another body of this size now", retry_after_seconds=1
            )
        return buffer


def is_here(request: BaseRequest, upload: Upload) -> bool:
    """Whether a small body has come with its headers, as nearly all of them do."""
    return (
        upload.length is not None
        and upload.length <= INLINE_LIMIT_BYTES
        and request.content.is_eof()
        and request.content.exception() is None
    )


async def receive(request: BaseRequest, upload: Upload, room: Room) -> Body:
    """Receive the announced body into ``room`` and find the image in it.

    :raises ApiError: it breaks off, passes the limit, or is not what its headers say.
    :raises ConnectionResetError: the client left.
    """
    content = b""
    if upload.length is None:
        content = await receive_chunked(request, room)
    elif is_here(request, upload):
        content = request.content.read_nowait()
    elif room.buffer is None:
        content = await receive_inline(request)
    elif upload.length >= TAKE_OVER_BYTES and takeover.can_take_over(request):
        await receive_large(request, room.buffer, upload.length, room.pool)
    else:
        await receive_copied(request, room.buffer.view[: upload.length])
    view = memoryview(content)
    if room.buffer is not None:
        view = room.buffer.view[: room.buffer.used_bytes]
    body = await find_image(view, upload)
    if room.buffer is None:
        body.inline = content[body.offset : body.offset + body.length]
        body.offset = 0
    body.buffer = room.buffer
    body.form = upload.form
    return body


def whole_body(content: bytes, upload: Upload) -> Body:
    """A small body that has no parts."""
    return Body(upload.media_type, upload.question, 0, len(content), content, form=upload.form)


async def receive_inline(request: BaseRequest) -> bytes:
    """A small body of known length."""
    return b"".join([chunk async for chunk in chunks_of(request)])


async def receive_large(
    request: BaseRequest, buffer: Buffer, length: int, pool: BufferPool
) -> None:
    """A large body, past the parser."""
    if buffer.is_fresh:
        await populate(buffer.view[:length])
    await takeover.receive(request, buffer.view[:length], pool.lanes)


async def receive_copied(request: BaseRequest, target: memoryview) -> None:
    """A body of middling size, through the parser."""
    filled = 0
    async for chunk in chunks_of(request):
        target[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    if filled < len(target):  # the rest may be a former caller's
        raise broken_off()


async def receive_chunked(request: BaseRequest, room: Room) -> bytes:
    """A body of unknown length: in memory while small, then in ever larger buffers."""
    small = bytearray()
    received = 0
    async for chunk in chunks_of(request):
        end = received + len(chunk)
        if room.buffer is None and end <= INLINE_LIMIT_BYTES:
            small += chunk
        else:
            buffer = room.grow(received, end)
            if small:
                buffer.view[: len(small)] = small
                small.clear()
            buffer.view[received:end] = chunk
        received = end
    if not received:
        raise empty("body")
    return bytes(small)


def ask_for_body(request: BaseRequest) -> None:
    """Tell a client that waits for it that its body is wanted."""
    waits = request.headers.get("Expect", "").lower() == "100-continue"
    if waits and request.version >= HttpVersion11 and request.transport:
        request.transport.write(CONTINUE)


async def chunks_of(request: BaseRequest) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ApiError where its framing is broken."""
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (HttpProcessingError, RequestPayloadError, asyncio.IncompleteReadError):
        raise broken_off() from None


def broken_off() -> ApiError:
    """The error for a body whose framing is broken, or that ends too early."""
    return ApiError("invalid_request", "the body breaks off", param="body")


async def find_image(view: memoryview, upload: Upload) -> Body:
    """Image and question within a received body. Raises ApiError."""
    if upload.boundary is None:
        return Body(upload.media_type, upload.question, 0, len(view))
    image: Part | None = None
    question = upload.question
    fields: dict[str, str] = {}
    for part in await split(view, upload.boundary):
        if part.name == "image" and image is None:
            image = part
        elif part.name == "question":
            if question is not None:
                raise second_question()
            question = question_part(view, part)
        elif part.name == "image":
            raise ApiError("invalid_request", "one image a request", param="image")
        elif part.name in upload.fields and part.name not in fields:
            fields[part.name] = question_part(view, part)
        else:
            known = " and ".join(("image", "question", *upload.fields))
            raise ApiError("invalid_request", f"parts are {known}", param=part.name[:64])
    if image is None:
        raise broken('it has no part named "image"')
    if image.length == 0:
        raise empty("image")
    reference = reference_part(view, image)
    media_type = image.media_type or "application/octet-stream"
    if reference is None and media_type not in IMAGE_TYPES:
        raise unsupported(media_type, "image")
    return Body(
        media_type, question, image.offset, image.length, reference=reference, fields=fields
    )


def reference_part(view: memoryview, part: Part) -> str | None:
    """The id of the image that the image part refers to; None where it is one itself."""
    if part.length != REFERENCE_BYTES or part.media_type not in {None, "text/plain"}:
        return None
    text = bytes(view[part.offset : part.offset + part.length]).decode("latin-1")
    reference = REFERENCE.fullmatch(text)
    return reference and reference[1]


def question_part(view: memoryview, part: Part) -> str:
    """The text of the question part. Raises ApiError."""
    if part.length > QUESTION_LIMIT_BYTES:
        raise question_too_long(part.length)
    raw = bytes(view[part.offset : part.offset + part.length])
    return check_question(raw.decode("utf-8", "surrogateescape"))
