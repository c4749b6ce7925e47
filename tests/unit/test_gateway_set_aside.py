# SPDX-License-Identifier: Apache-2.0
"""What is set aside: bounded in time and number, known by every byte, readable by nobody."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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


class Life:
    """One process after the other, with the same file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "set-aside.json"
        self.now = 1000.0

    def begins(self) -> SetAside:
        kept = SetAside(lambda: self.now)
        kept.keep_in(self.file)
        return kept


@pytest.fixture
async def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


async def test_the_next_front_door_goes_on_with_what_is_left_of_the_time(life: Life) -> None:
    await life.begins().put(BODY)
    life.now += SECONDS - 1
    later = life.begins()
    assert await later.holds(BODY)
    assert not await later.holds(replace(BODY, question="another"))
    life.now += 1
    assert not await later.holds(BODY)
    assert len(life.begins()) == 0
    assert not life.file.exists()


async def test_the_file_is_readable_by_nobody_else_and_holds_nothing_of_the_request(
    life: Life,
) -> None:
    await life.begins().put(BODY)
    assert life.file.stat().st_mode & 0o777 == 0o600
    content = life.file.read_bytes()
    assert b"poison" not in content
    assert b"what" not in content


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-20],
        lambda content: b"",
        lambda content: b"[" * 100_000,
        lambda content: content.replace(b'"key":"', b'"key":"x'),
        lambda content: content.replace(b'"length":6', b'"length":-6'),
        lambda content: re.sub(rb'"boot_id":"[^"]*"', b'"boot_id":"another"', content),
        lambda content: re.sub(
            rb"1600[.]0", b"1600.1", content
        ),  # beyond what any is set aside for
        lambda content: re.sub(rb"1600[.]0", b"1e400", content),
        lambda content: re.sub(rb'"digest":"[^"]*"', b'"digest":"' + b"0" * 64 + b'"', content),
    ],
)
async def test_a_file_that_is_damaged_is_as_good_as_none(
    life: Life, spoil: Callable[[bytes], bytes]
) -> None:
    await life.begins().put(BODY)
    spoilt = spoil(life.file.read_bytes())
    assert spoilt != life.file.read_bytes()
    life.file.write_bytes(spoilt)
    assert not await life.begins().holds(BODY)
    await life.begins().put(BODY)
    assert await life.begins().holds(BODY)


async def test_without_a_place_for_the_file_it_holds_as_long_as_the_process(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    life.file = life.file / "no" / "folder"
    kept = life.begins()
    await kept.put(BODY)
    assert await kept.holds(BODY)
    assert "ends with this process" in caplog.text


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 2000)), max_size=300))
def test_a_file_is_believed_about_no_more_marks_and_for_no_longer_than_any_are_kept(
    found: list[tuple[int, float]],
) -> None:
    marks = Marks()
    for length, until in found:
        marks.restore(length, b"", until, now=1000.0)
    assert all(1000 < until <= 1000 + SECONDS for _, _, until in marks.until())
    assert len(marks) <= LIMIT


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
