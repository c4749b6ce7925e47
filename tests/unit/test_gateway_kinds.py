# SPDX-License-Identifier: Apache-2.0
"""Which requests are alike, known without parsing them."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.body import Body
from gpuwarden.gateway.bodyscan import SCANNED_BYTES, members_in
from gpuwarden.gateway.kinds import LEAST_PIXELS, LEAST_TOKENS, describe, kind_of, step
from gpuwarden.gateway.weights import weight_of
from gpuwarden.gateway.work import Kind, Request, Seat, Weight
from tests.unit.test_gateway_bodyscan import JSON


def chat(pixels: int = 300, **members: Any) -> Body:
    url = f"data:image/png;base64,{base64.b64encode(bytes(pixels)).decode()}"
    content = [{"type": "text", "text": "Why?"}, {"type": "image_url", "image_url": {"url": url}}]
    document = {"messages": [{"role": "user", "content": content}], "model": "medgemma"}
    return chat_body(json.dumps(document | members).encode())


def chat_body(content: bytes) -> Body:
    return Body("application/json", None, 0, len(content), inline=content, form="chat")


def kind(body: Body) -> Kind | None:
    return kind_of(body, weight_of(body))


SIZES = (300, 100_000)  # of images: seen as a whole, seen at its ends


@pytest.mark.parametrize("pixels", SIZES)
@pytest.mark.parametrize(
    "members",
    [
        {"temperature": 0.7},
        {"max_tokens": 10},
        {"seed": 7},
        {"stop": ["a", "b"]},
        {"response_format": {"type": "text"}},
        {"unheard-of": {"temperature": 1}},
    ],
)
def test_whoever_wants_it_generated_otherwise_is_of_another_kind(
    pixels: int, members: dict[str, Any]
) -> None:
    plain, other = kind(chat(pixels)), kind(chat(pixels, **members))
    assert plain is not None
    assert other is not None
    assert plain.parameters != other.parameters
    assert other == kind(chat(pixels, user="somebody", stream=True, **members))


def test_a_chat_without_parameters_is_like_a_question_about_an_image() -> None:
    asked = Body("image/png", "Why?", 0, 300, inline=bytes(300))
    assert kind(chat()) == kind(asked)


def test_the_order_and_the_place_of_parameters_do_not_matter() -> None:
    bodies = [
        b'{"seed": 1, "top_p": 0.5, "messages": []}',
        b'{"messages":[],"top_p":0.5,"seed":1}',
        b'\n{ "top_p" : 0.5 , "messages" : [ {"seed": 3} ] , "seed" : 1\n}\n',
    ]
    assert len({kind(chat_body(one)) for one in bodies}) == 1


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5), st.booleans())
def test_a_chats_members_are_found_as_they_are_written(
    document: dict[str, Any], escaped: bool
) -> None:
    content = json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    found = members_in(memoryview(content))
    assert found is not None
    read = {json.loads(name): json.loads(value) for name, value in found.items()}
    assert read == document


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1, "messages": [',
        b'{"a": "' + b"x" * SCANNED_BYTES * 3 + b'"}',  # nobody knows what lies between
        b'{"messages": [' + b"{}," * 4000 + b"{}]}",
        b"[" * SCANNED_BYTES * 3,
        b'"' * SCANNED_BYTES * 3,
    ],
)
def test_what_can_not_be_looked_through_is_like_nothing_else(content: bytes) -> None:
    assert kind(chat_body(content)) is None


@given(st.binary(max_size=300))
def test_no_body_is_too_broken_to_be_looked_at(content: bytes) -> None:
    members_in(memoryview(content))


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 24))
def test_one_step_is_a_factor_of_four(size: int, least: int) -> None:
    place = step(size, least)
    assert size <= least * 4**place
    assert place == 0 or size > least * 4 ** (place - 1)


def test_images_and_texts_of_very_different_size_are_of_different_kinds() -> None:
    def of(weight: Weight) -> Kind | None:
        return kind_of(Body("image/png", None, 0, 0), weight)

    assert of(Weight(10, 10)) == of(Weight(LEAST_PIXELS, LEAST_TOKENS))
    assert of(Weight(10, 10)) != of(Weight(LEAST_PIXELS + 1, 10))
    assert of(Weight(10, 10)) != of(Weight(10, LEAST_TOKENS + 1))


@pytest.mark.parametrize(
    ("seats", "is_looked_for"),
    [
        ([], True),  # whoever comes may go by it
        ([Seat(1, 0, 4)], True),
        ([Seat(1, 0, 4, mixed=True), Seat(2, 0, 4)], True),
        ([Seat(1, 0, 4, mixed=True), Seat(2, 0, 4, slots=True)], False),
    ],
)
def test_nothing_is_looked_for_that_no_worker_goes_by(
    seats: list[Seat], is_looked_for: bool
) -> None:
    request, body = Request(1, 0, 30.0), chat(temperature=0.5)
    describe(request, body, seats)
    assert request.weight == weight_of(body)
    assert (request.kind == kind(body)) == is_looked_for
