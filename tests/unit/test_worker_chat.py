# SPDX-License-Identifier: Apache-2.0
import base64
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.chat import TEXT_LIMIT_BYTES, read_chat
from gpuwarden.worker.cuts import cut_images
from gpuwarden.worker.engine import Image, Request, RequestError

MODEL = "medgemma"


def url_of(image: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(image).decode()}"


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def chat(*content: dict[str, Any], **more: Any) -> bytes:
    messages = [{"role": "user", "content": list(content)}]
    return json.dumps({"messages": messages, "model": MODEL} | more).encode()


def read(body: bytes, **stored: Image) -> tuple[Request, dict[str, Any]]:
    return read_chat(memoryview(body), MODEL, stored)


def refusal(body: bytes) -> tuple[str, str | None]:
    with pytest.raises(RequestError) as refused:
        read(body)
    return refused.value.kind, refused.value.param


@given(st.lists(st.binary(min_size=1, max_size=400), max_size=5), st.text(max_size=80))
def test_images_and_texts_come_out_as_they_were_sent(images: list[bytes], asked: str) -> None:
    body = chat(text(asked), *(part(url_of(image)) for image in images))
    try:
        asked.encode()
    except UnicodeEncodeError:
        assert refusal(body)[1] == "messages[0].content[0].text"
        return
    request, _ = read(body)
    assert request.question == asked
    assert [bytes(image.data) for image in request.images] == images
    assert bytes(request.body) == (images[-1] if images else b"")


@given(st.text(max_size=60))
def test_a_text_that_looks_like_an_image_stays_a_text(around: str) -> None:
    for asked in (url_of(b"image") + around, f'{around} "{url_of(b"image")}"', url_of(b"image")):
        try:
            asked.encode()
        except UnicodeEncodeError:
            return
        request, _ = read(chat(text(asked)))
        assert (request.question, request.images) == (asked, ())


def test_the_image_is_not_in_what_is_parsed() -> None:
    image = bytes(3_000_000)
    rest, _ = cut_images(memoryview(chat(text("?"), part(url_of(image)))))
    assert len(rest) < 300


def test_slashes_may_be_escaped_as_php_does() -> None:
    image = bytes(range(256)) * 8
    body = chat(part(url_of(image))).replace(b"/", b"\\/")
    assert bytes(read(body)[0].body) == image


def test_a_reference_is_resolved_in_its_place() -> None:
    stored = Image("application/dicom", memoryview(b"DICM"))
    body = chat(part(url_of(b"first")), part("gpuwarden://abc"))
    request, _ = read(body, abc=stored)
    assert [image.media_type for image in request.images] == ["image/png", "application/dicom"]
    assert bytes(request.body) == b"DICM"
    assert refusal(body) == ("image_not_found", "messages[0].content[1].image_url.url")


def test_messages_are_handed_on_with_their_images_numbered() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [part(url_of(b"a")), text("what?")]},
        {"role": "assistant", "content": "A lung."},
        {"role": "user", "content": "sure?"},
    ]
    request, terms = read(json.dumps({"model": MODEL, "messages": messages, "seed": 7}).encode())
    assert [message["role"] for message in request.messages] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert request.messages[1]["content"] == [
        {"type": "image", "image": 0},
        {"type": "text", "text": "what?"},
    ]
    assert (request.question, bytes(request.body)) == ("sure?", b"a")
    assert request.parameters == {"seed": 7}
    assert terms == {"stream": False, "include_usage": False}
    assert pickle.loads(pickle.dumps(request, protocol=5)) == request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"model": NaN}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model": "medgemma", "messages": "\\ud800"',
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refusal(body) == ("bad_request", "body")


def test_a_text_over_the_limit_is_refused() -> None:
    assert refusal(chat(text("x" * TEXT_LIMIT_BYTES))) == ("bad_request", "body")


def test_too_many_images_are_refused() -> None:
    body = chat(*(part(url_of(b"x")) for _ in range(9)))
    assert refusal(body) == ("bad_request", "messages[0].content[8].image_url.url")


def test_a_refusal_quotes_no_text_of_the_request() -> None:
    with pytest.raises(RequestError) as refused:
        read(chat(text("DOE^JOHN"), part("file:///DOE^JOHN")))
    assert "DOE" not in str(refused.value)
