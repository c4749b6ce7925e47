# SPDX-License-Identifier: Apache-2.0
"""The workers' memory as it is shown to an operator."""

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.chart.memory import MemoryRecord, memory_drawing
from gpuwarden.chart.svg import svg
from gpuwarden.cli.main import main
from gpuwarden.cli.memory_screen import CHART_COLUMNS, chart_lines, memory_lines
from gpuwarden.control.memory import MemorySeries, WorkerMemory
from gpuwarden.control.states import WorkerStatus
from tests.unit.cli.samples import worker

GIB = 2**30
UTF8 = "utf-8"


@pytest.fixture(autouse=True)
def in_greenwich() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    os.environ.pop("TZ")
    os.environ.update({} if before is None else {"TZ": before})
    time.tzset()


def busy(number: int = 0, **changes: object) -> WorkerStatus:
    memory: dict[str, object] = {
        "peak_bytes": 11 * GIB,
        "inactive_split_bytes": GIB // 2,
        "limit_bytes": 20 * GIB,
        "num_device_alloc": 40,
        "num_alloc_retries": 0,
        "num_ooms": 2,
        "shortages": 1,
        "warning_threshold": 0.8,
    }
    return worker(
        number,
        vram_reserved_bytes=12 * GIB,
        vram_allocated_bytes=10 * GIB,
        vram=WorkerMemory.model_validate(memory | changes),
    )


def series(reserved: list[int | None], allocated: list[int | None]) -> MemorySeries:
    return MemorySeries(
        number=0,
        gpu=0,
        unix_seconds=[1_800_000_000 + 5 * n for n in range(len(reserved))],
        reserved_bytes=[None if value is None else value * GIB for value in reserved],
        allocated_bytes=[None if value is None else value * GIB for value in allocated],
        inactive_split_bytes=[None] * len(reserved),
    )


HOUR = series([*range(8, 16)] * 90, [*range(4, 12)] * 90)


def test_the_table_has_what_is_now_and_the_extremes_of_the_last_hour() -> None:
    lines = memory_lines([busy(remedy="batches", batch_ceiling=2)], {0: HOUR}, UTF8)
    assert lines[:4] == [
        "  WORKER  GPU  RESERVED  ALLOCATED  PEAK  SPLIT  SHARE  ALLOCS  RETRIES  FAILED  SHORT"
        "  REMEDY",
        "       0    0      12.0       10.0  11.0    0.5    60%      40        0       2      1"
        "  batches",
        "  GiB; SHARE of what it may hold; SHORT: times that requests ran out of memory",
        "  worker 0: batches of 2 at most, for want of memory",
    ]
    assert lines[5].split()[:6] == ["WORKER", "GIB", "MIN", "MAX", "LAST", "COURSE"]
    assert [line.split()[:5] for line in lines[6:]] == [
        ["0", "reserved", "8.0", "15.0", "15.0"],
        ["0", "allocated", "4.0", "11.0", "11.0"],
    ]


def test_what_is_unknown_is_a_dash_and_who_tells_nothing_is_not_there() -> None:
    plain = worker(1, vram_reserved_bytes=2 * GIB, vram_allocated_bytes=GIB)
    lines = memory_lines([worker(0), plain], {}, UTF8)
    assert lines[1].split() == ["1", "1", "2.0", "1.0", *["-"] * 8]
    assert memory_lines([worker(0)], {}, UTF8) == ["  no worker has told anything of its memory"]


def test_a_worker_whose_settings_are_too_large_is_told_so() -> None:
    assert "its settings are too large" in "\n".join(memory_lines([busy(is_tight=True)], {}, UTF8))


def test_the_chart_shows_use_what_is_held_beyond_it_and_the_threshold() -> None:
    flat = series([10] * 720, [5] * 720)
    lines = chart_lines(busy(), flat, "ascii")
    assert lines[0] == "worker 0 on GPU 0, GiB"
    bars = [line.partition("|")[2] for line in lines[1:11]]
    assert bars[0] == "-" * CHART_COLUMNS  # at 0.8 of 20 GiB
    assert [set(bar) for bar in bars[1:]] == [
        *[set()] * 3,
        *[{"+"}] * 3,
        *[{"#"}] * 3,
    ]
    assert lines[11] == "    0.0 +" + "-" * CHART_COLUMNS
    assert lines[12].split() == ["08:00", "59", "min", "08:59"]
    assert lines[13].strip() == "# in use  + held, not in use  - warning at 16.0"


def test_a_time_of_which_nothing_is_known_stays_empty() -> None:
    gap: list[int | None] = [*[10] * 240, *[None] * 240, *[10] * 240]
    lines = chart_lines(busy(warning_threshold=None), series(gap, gap), UTF8)
    bar = lines[10].partition("|")[2]
    assert " " in bar.strip()
    assert chart_lines(busy(), series([None], [None]), UTF8)[1] == "  nothing is recorded yet"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--plot",), "--memory --plot"),
        (("stop", "0", "--memory"), "--memory goes with no action"),
        (("--memory", "--plot", "memory.txt"), "must end in .png or .svg"),
    ],
)
def test_what_is_badly_used_is_told_so(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["workers", *words]) == 2
    assert told in capsys.readouterr().err


values = st.none() | st.integers(0, 200)


@given(st.lists(st.tuples(values, values), max_size=50), st.sampled_from([None, "ascii", UTF8]))
def test_whatever_is_recorded_can_be_shown_and_drawn(
    rows: list[tuple[int | None, int | None]], encoding: str | None
) -> None:
    past = series([row[0] for row in rows], [row[1] for row in rows])
    for line in (
        *memory_lines([busy()], {0: past}, encoding),
        *chart_lines(busy(), past, encoding),
    ):
        line.encode(encoding or "ascii")
    record = MemoryRecord("worker 0", past.unix_seconds, past.reserved_bytes, past.allocated_bytes)
    assert svg(memory_drawing([record, record])).startswith("<?xml")
    assert "no worker" in svg(memory_drawing([]))
