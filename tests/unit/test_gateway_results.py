# SPDX-License-Identifier: Apache-2.0
"""A RESULT that is taken without its model is one that the model would have taken as it is."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.messages import MessageError, Plain, Result, Told, parse, result_in

ANSWER = {"text": "an answer"}
TIMING = {"preprocess_seconds": 0.0, "predict_seconds": 0.25}
PLAIN = {"ok": True, "answer": ANSWER, "timing": TIMING}

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(),
    st.text(max_size=3),
    st.just(ANSWER),
    st.just(TIMING),
    st.dictionaries(st.sampled_from([*TIMING, "more"]), st.one_of(st.floats(), st.booleans())),
)
metas = st.dictionaries(
    st.sampled_from(["ok", "answer", "timing", "content", "error", "terms", "ticket"]), values
)


def parts_of(told: Told) -> tuple[Any, ...]:
    parts = told.ok, told.answer, told.content, told.error, told.terms, told.ticket
    return *parts, told.predict_seconds


def taken(meta: dict[str, Any]) -> tuple[Any, ...] | None:
    """What is believed of it; None: nothing."""
    try:
        told = result_in(meta)
    except MessageError:
        return None
    return parts_of(told)


def checked(meta: dict[str, Any]) -> tuple[Any, ...] | None:
    """The same by the model alone."""
    try:
        told = parse(Result, meta)
    except MessageError:
        return None
    if not told.is_complete():
        return None
    return parts_of(told)


@given(metas | metas.map(lambda meta: PLAIN | meta))
def test_both_ways_believe_the_same(meta: dict[str, Any]) -> None:
    assert taken(meta) == checked(meta)


def test_the_usual_one_needs_no_model() -> None:
    assert result_in(PLAIN) == Plain(ANSWER, 0.25)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, True, "0.1"])
def test_a_time_that_is_none_is_looked_at_more_closely(seconds: object) -> None:
    meta = PLAIN | {"timing": TIMING | {"predict_seconds": seconds}}
    assert taken(meta) == checked(meta)
