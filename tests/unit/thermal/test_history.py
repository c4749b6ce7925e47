# SPDX-License-Identifier: Apache-2.0
"""An hour of seconds, of fixed size."""

import tracemalloc

from gpuwarden.control.requests import HISTORY_ROWS_LIMIT, HistoryAnswer
from gpuwarden.control.socket import RECORD_LIMIT_BYTES
from gpuwarden.thermal.decision import Reading
from gpuwarden.thermal.history import KEPT_ROWS, History
from gpuwarden.values import ThermalState

NORMAL, ALERT = ThermalState.NORMAL, ThermalState.ALERT
SAMPLES_A_SECOND = 5
TEN_HOURS_SECONDS = 36_000
MEBIBYTE = 1024 * 1024


def reading(celsius: float, watts: float | None = 300.0, memory: float | None = 60.0) -> Reading:
    return Reading(0.0, celsius, memory, watts)


def filled(seconds: int, rows: int = KEPT_ROWS) -> History:
    history = History(rows)
    for second in range(1, seconds + 1):
        history.see(reading(second % 60 + 20))
        history.close_second(second * 1_000_000, 350.0, NORMAL)
    return history


def moments(history: History, after: int = 0, limit: int = 10_000) -> list[int]:
    rows, _ = history.after(after, limit)
    return [row.unix_microseconds // 1_000_000 for row in rows]


def test_a_second_is_the_mean_and_the_extremes_of_its_samples() -> None:
    history = History()
    history.see(reading(70, 300, 60))
    history.see(reading(75, 320, 66))
    history.see(reading(71, 310, 61))
    history.close_second(5_000_000, 350.0, ALERT)
    ((row,), more) = history.after(0, 10)
    assert not more
    assert row.unix_microseconds == 5_000_000
    assert (row.celsius, row.celsius_lowest, row.celsius_highest) == (72, 70, 75)
    assert (row.watts, row.watts_highest, row.limit_watts) == (310, 320, 350)
    assert (row.memory_celsius, row.state) == (66, ALERT)


def test_what_a_card_does_not_say_is_unknown_and_not_zero() -> None:
    history = History()
    history.see(reading(70, None, None))
    history.close_second(1, None, NORMAL)
    ((row,), _) = history.after(0, 10)
    assert (row.watts, row.watts_highest, row.limit_watts, row.memory_celsius) == (None,) * 4


def test_a_second_without_a_sample_leaves_a_gap() -> None:
    history = History()
    history.see(reading(70))
    history.close_second(1_000_000, 350.0, NORMAL)
    history.close_second(2_000_000, 350.0, ThermalState.BLIND)
    history.see(reading(71))
    history.close_second(3_000_000, 350.0, NORMAL)
    assert moments(history) == [1, 3]


def test_each_sample_counts_in_one_second_only() -> None:
    history = filled(2)
    rows, _ = history.after(0, 10)
    assert [(row.celsius_lowest, row.celsius_highest) for row in rows] == [(21, 21), (22, 22)]


def test_an_hour_is_kept_and_the_oldest_seconds_go_first() -> None:
    kept = moments(filled(KEPT_ROWS + 100))
    assert kept == list(range(101, KEPT_ROWS + 101))


def test_a_small_ring_wraps_where_it_should() -> None:
    assert [moments(filled(seconds, rows=3)) for seconds in range(6)] == [
        [],
        [1],
        [1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [3, 4, 5],
    ]


def test_pages_follow_each_other_without_a_gap_or_a_repetition() -> None:
    history = filled(KEPT_ROWS + 7)
    found: list[int] = []
    after, more = 0, True
    while more:
        rows, more = history.after(after, HISTORY_ROWS_LIMIT)
        assert len(rows) <= HISTORY_ROWS_LIMIT
        after = rows[-1].unix_microseconds
        found += [row.unix_microseconds // 1_000_000 for row in rows]
    assert found == list(range(8, KEPT_ROWS + 8))


def test_nothing_is_after_the_last_second() -> None:
    assert filled(5).after(5_000_000, 10) == ([], False)
    assert filled(5).after(3_000_000, 2)[1] is False


def test_a_full_page_fits_a_record() -> None:
    history = History()
    for second in range(HISTORY_ROWS_LIMIT + 1):
        history.see(reading(71.123456789, 312.3456789, 61.23456789))
        history.see(reading(100.00000001, 1312.3456789, 61.23456789))
        history.close_second(1_790_000_000_000_000 + second, 1350.123456789, ALERT)
    rows, more = history.after(0, HISTORY_ROWS_LIMIT)
    assert more
    record = HistoryAnswer(rows=rows, more=more).model_dump_json()
    assert len(record) < RECORD_LIMIT_BYTES - 100


def test_ten_hours_of_samples_grow_the_process_by_less_than_a_mebibyte() -> None:
    tracemalloc.start()
    try:
        history = History()
        before, _ = tracemalloc.get_traced_memory()
        for second in range(TEN_HOURS_SECONDS):
            for _ in range(SAMPLES_A_SECOND):
                history.see(reading(20.0 + second % 60))
            history.close_second(second, 350.0, NORMAL)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most - before < MEBIBYTE / 4
