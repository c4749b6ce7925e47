"""What is set aside: bounded in time and number, known by every byte, readable by nobody."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.body import Body
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.marks import LIMIT, SECONDS, Marks
from gpuwarden.gateway.setaside import SetAside

BODY = Body("image/png", "what is it?", 0, 6, inline=b"poison")


def set_aside(*bodies: Body, clock: list[float] | None = None) -> SetAside:
    times = clock or [0.0]
    kept = SetAside(lambda: times[0])
    for body in bodies:
        asyncio.run(kept.put(body))
    return kept


def holds(kept: SetAside, body: Body) -> bool:
    return asyncio.run(kept.holds(body))


def test_the_same_again_is_refused_with_the_name_of_the_error() -> None:
    kept = set_aside(BODY)
    with pytest.raises(ApiError) as refused:
        asyncio.run(kept.check(replace(BODY)))
    assert (refused.value.type, refused.value.status) == ("worker_crashed", 500)


@pytest.mark.parametrize(
    "other",
    [
        replace(BODY, inline=b"Poison"),
        replace(BODY, inline=b"poison ", length=7),
        replace(BODY, question="what is it"),
        replace(BODY, question=None),
        replace(BODY, form="chat"),
    ],
)
def test_anything_else_is_taken(other: Body) -> None:
    assert not holds(set_aside(BODY), other)


def test_after_some_minutes_it_is_tried_again() -> None:
    clock = [0.0]
    kept = set_aside(BODY, clock=clock)
    clock[0] = SECONDS - 1
    assert holds(kept, BODY)
    clock[0] = SECONDS
    assert not holds(kept, BODY)
    assert len(kept) == 0


def test_two_front_doors_have_different_marks_for_the_same() -> None:
    marks = [next(iter(set_aside(BODY)._marks._until)) for _ in range(2)]
    assert marks[0] != marks[1]


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(min_size=1, max_size=2)), max_size=600))
def test_however_many_are_set_aside_the_newest_are_kept_and_no_more_than_the_limit(
    added: list[tuple[int, bytes]],
) -> None:
    marks = Marks()
    for now, (length, digest) in enumerate(added):
        marks.add(length, digest, now / 1000)
    assert len(marks) == min(LIMIT, len(set(added)))
    newest = list(dict.fromkeys(reversed(added)))[:LIMIT]
    assert all(marks.holds(*one) for one in newest)
    assert all(marks.has_length(length) for length, _ in newest)
    marks.forget(SECONDS + len(added))
    assert len(marks) == 0
