# SPDX-License-Identifier: Apache-2.0
import array
import json
from typing import Any

import numpy
import pytest

from gpuwarden.worker.engine import Output
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.nesting import NESTING_LIMIT
from gpuwarden.worker.outputs import (
    ANSWER_LIMIT_BYTES,
    BESIDE_LIMIT_BYTES,
    Large,
    checked_answer,
    for_chat,
)

PNG = "image/png"


def large(answer: Any) -> Large:
    checked = checked_answer(answer)
    assert isinstance(checked, Large), checked
    return checked


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcd")[1:3], b"bc"),
        (array.array("H", [1, 2]), b"\1\0\2\0"),
        (numpy.array([[1, 2], [3, 4]], "<u2"), b"\1\0\2\0\3\0\4\0"),
        (numpy.array([True, False]), b"\1\0"),
        (numpy.empty((0, 7)), b""),
    ],
)
def test_whatever_lies_in_one_piece_is_a_file(data: Any, expected: bytes) -> None:
    output = large(Output(PNG, data, {"volume_ml": 3.5}))
    assert (output.part, output.media_type, output.answer) == ("file", PNG, {"volume_ml": 3.5})
    assert bytes(output.data) == expected
    assert output.content() == {"part": "file", "media_type": PNG, "length": len(expected)}


@pytest.mark.parametrize(
    ("output", "kind", "text"),
    [
        (Output("PNG", b""), "engine_error", "media_type"),
        (Output("image/png\r\nX: y", b""), "engine_error", "media_type"),
        (Output("image/png; charset=x", b""), "engine_error", "media_type"),
        (Output(None, b""), "engine_error", "media_type"),  # type: ignore[arg-type] # the mistake
        (Output(PNG, "text"), "engine_error", "one contiguous buffer"),
        (Output(PNG, numpy.eye(4)[:, 1]), "engine_error", "one contiguous buffer"),
        (Output(PNG, [1, 2]), "engine_error", "one contiguous buffer"),
        (Output(PNG, b"", {"a": numpy.eye(2)}), "engine_error", "what JSON can hold"),
        (Output(PNG, b"", {"a": float("nan")}), "engine_error", "what JSON can hold"),
        (Output(PNG, b"", {"a": "x" * BESIDE_LIMIT_BYTES}), "result_too_large", "beside an Output"),
        (Output(PNG, b"", {"a": "x" * 10**6}), "result_too_large", "beside an Output"),
        (Output(PNG, b"", [1]), "engine_error", "must return a dict"),  # type: ignore[arg-type] # the mistake
    ],
)
def test_what_is_no_file_is_told_in_words(output: Output, kind: str, text: str) -> None:
    failure = checked_answer(output)
    assert isinstance(failure, Failure)
    assert failure.kind == kind
    assert text in failure.message


def test_an_answer_travels_in_its_frame_for_as_long_as_it_fits() -> None:
    envelope = len(json.dumps({"a": ""}, separators=(",", ":")))
    fits = {"a": "x" * (ANSWER_LIMIT_BYTES - envelope)}
    assert checked_answer(fits) == fits
    longer = {"a": fits["a"] + "x"}
    output = large(longer)
    assert (output.part, output.media_type) == ("answer", "application/json")
    assert json.loads(bytes(output.data)) == longer


def test_a_chats_long_text_is_set_apart_from_what_goes_with_it() -> None:
    usage = {"completion_tokens": 7}
    answer = large({"text": "é" * 50_000, "usage": usage, "finish_reason": "length", "more": 1})
    chat = for_chat(answer, told=False)
    assert isinstance(chat, Large)
    assert json.loads(bytes(chat.data)) == "é" * 50_000
    assert chat.answer == {"usage": usage, "finish_reason": "length"}
    assert for_chat(answer, told=True) == chat.answer


def test_a_chat_gets_long_figures_as_text_and_no_file() -> None:
    figures = {"values": list(range(50_000))}
    chat = for_chat(large(figures), told=False)
    assert isinstance(chat, Large)
    assert json.loads(json.loads(bytes(chat.data))) == figures
    failure = for_chat(large(Output(PNG, b"x")), told=False)
    assert isinstance(failure, Failure)
    assert "/predict" in failure.message
    assert for_chat({"text": "short"}, told=False) == {"text": "short"}


def nested(levels: int) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for _ in range(levels - 1):
        answer = {"findings": answer}
    return answer


def test_an_answer_that_nobody_could_read_further_on_fails_by_name() -> None:
    for answer in (nested(NESTING_LIMIT + 1), nested(800), Output(PNG, b"", nested(800))):
        failure = checked_answer(answer)
        assert isinstance(failure, Failure)
        assert failure.kind == "engine_error"
        assert failure.message.endswith("an answer that is nested more than 100 levels deep")
    assert checked_answer(nested(NESTING_LIMIT)) == nested(NESTING_LIMIT)
    assert checked_answer({"text": "[" * 800}) == {"text": "[" * 800}
