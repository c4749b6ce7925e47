# SPDX-License-Identifier: Apache-2.0
"""The benchmark itself works, on a small scale and without the peers."""

import os
import struct
from pathlib import Path

import pytest

from tests.bench.dataplane.idle import REQUEST, processors_awake
from tests.bench.dataplane.report import Goal, goals_of
from tests.bench.dataplane.run import document, run
from tests.bench.dataplane.sections import SECTIONS, Scale
from tests.bench.dataplane.systems import BARE, FLOOR

TINY = Scale(rounds=1, seconds=0.2, warm_up_seconds=0.1)


async def test_every_section_measures_the_real_front_door(tmp_path: Path) -> None:
    sections = await run(list(SECTIONS), TINY, peers=[FLOOR, BARE], folder=tmp_path)
    for name, section in zip(SECTIONS, sections, strict=True):
        assert section.rows, name
        assert all(len(row) == len(section.columns) for row in section.rows), name
    text = "\n".join(document(sections))
    for goal in ("CPU a request", "p50 over that of aiohttp", "p99", "abandoned"):
        assert goal in text
    assert text.count(f"| {BARE} |") == 2  # with one client, and with four
    with processors_awake() as are_awake:
        assert ("| 1, awake |" in text) == are_awake
    assert not os.listdir(tmp_path)  # noqa: PTH208 - in a coroutine


def test_the_kernel_knows_that_processors_are_kept_awake() -> None:
    with processors_awake() as are_awake:
        told = REQUEST.read_bytes() if are_awake else b""
    assert not told or struct.unpack("i", told[:4]) == (0,)


@pytest.mark.parametrize(
    ("measured", "least", "word"),
    [(2.9, True, "**missed**"), (3.0, True, "met"), (14.1, False, "**missed**")],
)
def test_a_goal_says_whether_it_is_met(measured: float, least: bool, word: str) -> None:
    goal = Goal("speed", measured, 3.0 if least else 14.0, "ms", least)
    assert goal.row().endswith(f"| {word} |")


def test_no_goals_make_no_table() -> None:
    assert goals_of([]) == []
