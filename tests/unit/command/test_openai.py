# SPDX-License-Identifier: Apache-2.0
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.engine import BadImageError, BadRequestError, Image, Request, RequestError
from gpuwarden.worker.engines.command.openai import (
    Completion,
    Events,
    body_of,
    error_of,
)

PNG = b"\x89PNG\r\n\x1a\n and the rest"
JPEG = b"\xff\xd8\xff and the rest"
NOTHING = memoryview(b"")


def predict(question: str | None, body: bytes = b"", media_type: str = "") -> Request:
    return Request(question, media_type, {}, memoryview(body))


def sent(request: Request, **further: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(body_of(request, "inner", further))
    return document


def test_a_question_alone_is_a_text_and_with_an_image_two_parts() -> None:
    assert sent(predict("why?"))["messages"] == [{"role": "user", "content": "why?"}]
    (message,) = sent(predict("why?", JPEG, "application/octet-stream"))["messages"]
    url = f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
    assert message["content"] == [
        {"type": "text", "text": "why?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


def test_a_chat_keeps_its_turns_and_its_images_their_places() -> None:
    parts = [{"type": "image", "image": 1}, {"type": "text", "text": "a"}]
    more = [{"type": "image", "image": 0}]
    request = Request(
        "a",
        "image/png",
        {"temperature": 0, "max_tokens": 5},
        memoryview(PNG),
        (
            {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
            {"role": "user", "content": parts},
            {"role": "user", "content": more},
        ),
        (Image("image/png", memoryview(PNG)), Image("image/png", memoryview(JPEG))),
    )
    document = sent(request, temperature=1, top_k=3)
    assert (document["temperature"], document["max_tokens"], document["top_k"]) == (0, 5, 3)
    system, first, second = document["messages"]
    assert system == {"role": "system", "content": "be brief"}
    assert first["content"][0]["image_url"]["url"].startswith("data:image/jpeg;")
    assert first["content"][1] == {"type": "text", "text": "a"}
    assert second["content"][0]["image_url"]["url"].startswith("data:image/png;")


def test_the_workers_own_fields_can_not_be_taken_from_it() -> None:
    document = sent(predict("why?"), stream=False, model="other")
    assert (document["stream"], document["model"]) == (True, "inner")


def test_what_the_server_could_not_read_is_refused_before_it_gets_it() -> None:
    with pytest.raises(BadImageError, match="PNG and JPEG"):
        sent(predict("why?", bytes(128) + b"DICM", "application/dicom"))
    with pytest.raises(BadRequestError, match="neither a question nor an image"):
        sent(predict(None))


@given(st.lists(st.text(alphabet='ab{}"€ ', min_size=1).map(str.strip).filter(bool)), st.data())
def test_events_are_the_same_wherever_their_bytes_are_cut(
    texts: list[str], data: st.DataObject
) -> None:
    whole = b"".join(f": a comment\r\ndata: {text}\r\n\r\n".encode() for text in texts)
    events, found, place = Events(), [], 0
    while place < len(whole):
        size = data.draw(st.integers(1, len(whole) - place))
        found += events.feed(whole[place : place + size])
        place += size
    assert found == [text.encode() for text in texts]


def test_an_event_without_an_end_is_given_up() -> None:
    with pytest.raises(RequestError, match="too long"):
        Events().feed(b"data: " + b"x" * (1 << 20))


def told(*events: Any) -> Completion:
    completion = Completion()
    for event in events:
        completion.take(event if isinstance(event, bytes) else json.dumps(event).encode())
    return completion


def delta(text: str | None, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish_reason}]}


def test_an_answer_is_its_pieces_with_its_end_and_its_counts() -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm", "content": None}}]}
    counts = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "details": {}}
    end = {"choices": [], "usage": counts}
    completion = told(thought, delta("a"), delta("b"), delta("", "length"), end, b"[DONE]")
    assert completion.result() == {
        "text": "ab",
        "finish_reason": "length",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ((delta("a"),), "broke its answer off"),
        ((delta("a", "abort"), b"[DONE]"), "gave the request up"),
        (({"error": {"message": "out of memory"}},), "out of memory"),
        (({"error": "out of memory"},), "out of memory"),
        ((b"{",), "no JSON"),
        ((b"[]",), "no answer of OpenAI's form"),
        (({"choices": ["a"]},), "no answer of OpenAI's form"),
    ],
)
def test_what_is_no_answer_is_an_error(events: tuple[Any, ...], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        told(*events).result()


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "too long", "param": "messages"}},
        {"message": "too long", "object": "error", "param": "messages"},
        {"detail": "too long", "param": "messages"},
        {"error": "too long", "param": "messages"},
    ],
)
def test_the_servers_own_words_reach_who_can_correct_something(document: dict[str, Any]) -> None:
    error = error_of(400, document)
    assert (type(error), str(error)) == (BadRequestError, "too long")
    assert error.param in ("messages", None)


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        ("bad_request", (400, 404, 413, 422)),
        ("no_room", (429, 503)),
        ("engine_error", (302, 401, 403, 500)),
    ],
)
def test_a_status_without_words_has_some_of_ours(kind: str, statuses: tuple[int, ...]) -> None:
    errors = [error_of(status, None) for status in statuses]
    assert {error.kind for error in errors} == {kind}
    assert all(map(str, errors))
