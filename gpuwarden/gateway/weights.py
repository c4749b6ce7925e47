# SPDX-License-Identifier: Apache-2.0
"""What a request brings into a batch, as far as it can be known without decoding anything.

A PNG and a JPEG say their size at a place that is found in a few steps. Of everything else a byte
counts as a pixel: an uncompressed image of 8 bits has as many, one of 16 bits half as many, and a
compressed one more; nothing in a body is searched for it. Tokens are a quarter of the bytes of the
text; in a chat that is what stands outside of its data URLs, at both ends of the body.
"""

from gpuwarden.gateway.body import Body
from gpuwarden.gateway.work import Weight

PNG = b"\x89PNG\r\n\x1a\n"
PNG_HEAD = slice(12, 24)  # of its first chunk: IHDR, width, height
JPEG = b"\xff\xd8\xff"
JPEG_SIZES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
JPEG_SEGMENTS = 64  # before its size: a camera writes ten
BYTES_PER_TOKEN = 4
LOOKED_AT_BYTES = 64 << 10  # of a chat, at either end
URLS_LOOKED_FOR = 64  # at either end: a hostile body costs no more
DATA = b";base64,"
QUOTE = b'"'


def weight_of(body: Body) -> Weight:
    """What is known of a received body."""
    if body.form == "chat":
        text = text_bytes(body.image)
        referred = sum(pixels_in(image.content) for image in body.images) if body.images else 0
        return Weight(referred + body.length - text, tokens_of(text))
    question = body.question
    tokens = tokens_of(len(question.encode("utf-8", "surrogateescape"))) if question else 0
    return Weight(pixels_in(body.inline if body.buffer is None else body.image), tokens)


def tokens_of(size: int) -> int:
    """How many tokens a text of so many bytes has, about."""
    return -(-size // BYTES_PER_TOKEN)


def pixels_in(image: memoryview | bytes) -> int:
    """How many pixels an image has by its own word, or by its length where it says nothing."""
    head, said = bytes(image[: PNG_HEAD.stop]), None
    if head.startswith(PNG):
        said = _area(head[16:20], head[20:24]) if head[12:16] == b"IHDR" else None
    elif head.startswith(JPEG):
        said = _jpeg_area(image)
    return said or len(image)


def _jpeg_area(image: memoryview | bytes) -> int | None:
    """Width times height of the first frame; None where none is found in its place."""
    place = 2
    for _ in range(JPEG_SEGMENTS):
        segment = bytes(image[place : place + 9])
        if len(segment) < 9 or segment[0] != 0xFF:
            return None
        if segment[1] in JPEG_SIZES:
            return _area(segment[5:7], segment[7:9])
        place += 2 + max(2, int.from_bytes(segment[2:4], "big"))
    return None


def _area(width: bytes, height: bytes) -> int:
    return int.from_bytes(width, "big") * int.from_bytes(height, "big")


def text_bytes(chat: memoryview) -> int:
    """Bytes of a chat that belong to no data URL, among those at its ends."""
    size = len(chat)
    head = bytes(chat[:LOOKED_AT_BYTES])
    if size <= LOOKED_AT_BYTES:
        return _outside_of_data(head, 0)
    tail = bytes(chat[max(LOOKED_AT_BYTES, size - LOOKED_AT_BYTES) :])
    quote = tail.find(QUOTE)  # it may begin within an image
    return _outside_of_data(head, 0) + (_outside_of_data(tail, quote) if quote >= 0 else 0)


def _outside_of_data(text: bytes, place: int) -> int:
    """How much of it, from a place on, is no data; a data URL ends with its JSON string."""
    total = 0
    for _ in range(URLS_LOOKED_FOR):
        start = text.find(DATA, place)
        if start < 0:
            break
        total += start - place
        place = text.find(QUOTE, start)
        if place < 0:
            return total
    return total + len(text) - place
