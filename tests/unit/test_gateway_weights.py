# SPDX-License-Identifier: Apache-2.0
"""What a request brings into a batch, known without decoding it."""

import base64
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gpuwarden.gateway.body import Body
from gpuwarden.gateway.weights import pixels_in, text_bytes, weight_of
from gpuwarden.gateway.work import Weight


def encoded(kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (640, 480), "navy").save(content, kind, **options)
    return content.getvalue()


def chat(*parts: dict[str, Any]) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": list(parts)}]}).encode()


def chat_body(content: bytes) -> Body:
    return Body("application/json", None, 0, len(content), inline=content, form="chat")


@pytest.mark.parametrize(
    "image",
    [
        encoded("PNG"),
        encoded("JPEG"),
        encoded("JPEG", progressive=True),
        encoded("JPEG", exif=b"Exif\0\0" + bytes(60_000), comment=b"x" * 5000),
    ],
)
def test_png_and_jpeg_say_their_size(image: bytes) -> None:
    assert pixels_in(memoryview(image)) == 640 * 480


@pytest.mark.parametrize(
    "image",
    [b"", b"anything else", b"\x89PNG\r\n\x1a\n", encoded("PNG")[:20], encoded("JPEG")[:10]],
)
def test_what_does_not_say_its_size_counts_by_its_bytes(image: bytes) -> None:
    assert pixels_in(memoryview(image)) == len(image)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_no_image_is_too_broken_to_be_weighed(rest: bytes, start: bytes) -> None:
    assert pixels_in(memoryview(start + rest)) >= 0


def test_a_question_counts_by_its_bytes() -> None:
    body = Body("image/png", "why? " * 8, 0, 3, inline=b"abc")
    assert weight_of(body) == Weight(pixels=3, tokens=10)


@pytest.mark.parametrize("size", [10, 60_000, 100_000, 1_000_000])
def test_the_images_of_a_chat_are_told_from_its_text(size: int) -> None:
    url = f"data:image/png;base64,{base64.b64encode(bytes(size)).decode()}"
    with_image = chat(
        {"type": "text", "text": "Describe this. " * 100},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Be brief."},
    )
    written = len(with_image) - len(base64.b64encode(bytes(size)))
    weight = weight_of(chat_body(with_image))
    assert written * 0.9 <= text_bytes(memoryview(with_image)) <= written
    assert weight.tokens <= written // 4 + 1
    assert size <= weight.pixels <= 1.5 * size + 200


@given(st.binary(max_size=300))
def test_no_chat_has_more_text_than_bytes(content: bytes) -> None:
    assert 0 <= text_bytes(memoryview(content)) <= len(content)
