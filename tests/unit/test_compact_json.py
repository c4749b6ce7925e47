# SPDX-License-Identifier: Apache-2.0
"""The JSON of frames and answers: what ``json`` makes of it, faster."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.compact import compact_json, encoder_of, parse_json
from gpuwarden.worker.nesting import nests_too_deep

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
slow = encoder_of(None)  # where this Python has no encoder in C


@given(values)
def test_it_is_what_json_makes_of_it_and_comes_back(value: Any) -> None:
    text = compact_json(value)
    assert text == slow(value) == json.dumps(value, separators=(",", ":"))
    assert parse_json(text) == value
    assert text.isascii()


@pytest.mark.parametrize("encode", [compact_json, slow])
def test_what_json_has_no_word_for_is_refused(encode: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (float("nan"), [float("inf")], {"a": b"bytes"}, object(), {(1, 2): 3}, endless):
        with pytest.raises((TypeError, ValueError, RecursionError)):
            encode(value)


@pytest.mark.parametrize("text", ["", "{", "{} {}", "{}x", "[1,]", "nul", " {}", "{} "])
def test_one_value_and_nothing_around_it_is_taken(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


def levels(value: Any) -> int:
    if not isinstance(value, (list, dict)):
        return 0
    inner = value if isinstance(value, list) else value.values()
    return 1 + max(map(levels, inner), default=0)


@given(values)
def test_the_levels_of_a_text_are_counted(value: Any) -> None:
    text = compact_json(value).encode()
    assert not nests_too_deep(text, levels(value))
    assert levels(value) == 0 or nests_too_deep(text, levels(value) - 1)


def test_brackets_in_texts_are_no_levels() -> None:
    text = compact_json({"finding": '\\"' + "[{" * 200, "more": []}).encode()
    assert not nests_too_deep(text, 2)
    assert nests_too_deep(b"[" * 101)  # whatever comes after
