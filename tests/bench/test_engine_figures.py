# SPDX-License-Identifier: Apache-2.0
"""What the engine's benchmark makes of its measurements."""

from typing import Any

import numpy

from gpuwarden.worker.engines.transformers.shrinking import Shrinker
from tests.bench.engine import picture, proof
from tests.bench.engine.gaps import causes_of
from tests.bench.engine.images import dicom
from tests.bench.engine.journal import Event
from tests.bench.engine.margins import Place, counts_of
from tests.bench.engine.naive import figures_of
from tests.bench.engine.rates import Came
from tests.bench.engine.stages import stages_between
from tests.bench.engine.summary import summary_of
from tests.bench.engine.table import table_of

STEADY = [(n / 100, "told") for n in range(1000)]  # a step each 10 ms for 10 s


def journal(*others: Event, without: tuple[float, float] = (0.0, 0.0)) -> list[Event]:
    """A worker that tells somebody something all the time, but for a pause."""
    told = [(at, 0.0, kind, 4) for at, kind in STEADY if not without[0] < round(at, 3) < without[1]]
    return [*told, *others]


def only_cause(gap: tuple[float, float], events: list[Event]) -> str:
    found = causes_of([gap], events)["causes"]
    assert len(found) == 1
    return str(next(iter(found)))


def test_a_pause_while_others_join_is_theirs() -> None:
    events = journal((5.0, 0.08, "join", 4), without=(5.0, 5.1))
    assert only_cause((5.1, 0.1), events) == "joining: 1 groups, 4 pictures"


def test_a_pause_while_garbage_is_collected_is_the_collectors() -> None:
    events = journal((5.0, 0.09, "gc", 2), (5.0, 0.001, "join", 1), without=(5.0, 5.1))
    assert only_cause((5.1, 0.1), events) == "garbage collection"


def test_a_pause_in_which_the_worker_went_on_is_behind_it() -> None:
    assert only_cause((5.1, 0.1), journal()) == "behind the worker: front door or caller"


def test_a_pause_of_the_worker_with_no_event_is_said_so() -> None:
    assert only_cause((5.1, 0.1), journal(without=(5.0, 5.1))) == "worker: none of these"


def test_the_rate_is_back_when_two_seconds_bring_what_they_brought_before() -> None:
    before = [(n / 10, 1.0) for n in range(100)]  # ten a second until 10
    slow = [(15 + n / 2, 1.0) for n in range(10)]  # two a second from 15 to 20
    again = [(20 + n / 10, 1.0) for n in range(50)]
    came = Came([*again, *before, *slow])
    rate = came.usual_rate(2, 10)
    assert abs(rate - 10) < 0.6
    back = came.back_at(10, rate)
    assert back is not None
    assert 19 <= back <= 20.5
    assert came.back_at(10, 10 * rate) is None


def test_choices_that_the_noise_explains_are_told_from_those_that_it_does_not() -> None:
    same = Place(first=1, second=2, margin=3.0, chosen=1, behind=0.0, moved=0.1)
    near = Place(first=1, second=2, margin=0.05, chosen=2, behind=0.05, moved=0.02)
    far = Place(first=1, second=2, margin=0.5, chosen=3, behind=0.7, moved=0.0)
    found = counts_of([same, near, far])
    assert (found["choices"], found["equal"], found["other"]) == (3, 1, 2)
    assert (found["other_with_margin_below_noise"], found["other_beyond_noise"]) == (1, 1)
    assert found["noise"] == 0.1


def test_a_summary_counts_gaps_over_all_streams() -> None:
    one: dict[str, Any] = {
        "error": "", "began": 0.0, "ended": 2.0, "tokens": 10, "uploaded": 0.1, "first": 0.2,
        "middle_gap": 0.01, "prompt_tokens": 5, "long": [[1.5, 0.09]], "gaps": {"10": 8, "90": 1},
    }  # fmt: skip
    found = summary_of([one, one, {**one, "error": "gone"}], 4)
    assert (found["requests"], found["failures"]) == (3, 1)
    assert found["gaps"] == 18
    assert found["p50_gap_milliseconds"] == 10.5
    assert found["gaps_over_60_milliseconds"] == 2
    assert found["longest_gap_milliseconds"] == 90
    assert found["cut_short"].startswith("3 of 4")


def test_stages_are_of_the_requests_between_two_readings_of_all_workers() -> None:
    one = ({"stages": {"made ready": [2, 0.2]}}, {"stages": {"made ready": [4, 0.3]}})
    other: tuple[dict[str, Any], dict[str, Any]] = ({}, {"stages": {"made ready": [2, 0.1]}})
    assert stages_between([one, other]) == {"made ready": 50.0}
    assert stages_between([({}, {})]) == {}


def test_both_ways_to_make_a_picture_make_the_same() -> None:
    body = dicom(1024, 3)
    found = picture.in_bands(body, Shrinker((224, 224), picture.BILINEAR))
    assert numpy.array_equal(found, picture.plainly(body, 224))


def test_the_table_says_where_a_requests_time_went_and_how_full_the_card_was() -> None:
    part = {
        "rows_in_use": 27.04,
        "mean_upload_seconds": 0.020,
        "mean_first_token_seconds": 0.150,
        "stages_milliseconds": {"made ready": 30.0, "of it: resized": 20.0, "joined": 60.0},
    }
    line = next(one for one in table_of({"together": part}) if "rows in use" in one)
    assert "27.0 rows in use; ms until the first token, 150 in all: upload 20.0" in line
    assert "front door, queues, telling 40.0" in line


def test_the_first_naive_request_is_not_counted() -> None:
    assert figures_of([9.0], [1.0], 128)["requests"] == 0
    found = figures_of([9.0, 4.0, 5.0, 6.0], [1.0, 0.1, 0.1, 0.1], 100)
    assert (found["requests"], found["p50_seconds"]) == (3, 5.0)
    assert abs(found["milliseconds_per_step"] - 49) < 1e-9


def test_the_table_says_what_was_missed_and_what_was_not_measured() -> None:
    lines = table_of(
        {
            "together": {"requests_per_second": 14.0, "cut_short": "9 of 480 requests"},
            "killed": {"failures": 0, "load_seconds_warm": 37.0},
            "two": {"requests_per_second": 50.0, "uneven": 0.01, "failures": 0},
            "one": {"requests_per_second": 26.0},
            "naive": {"requests": 8, "requests_per_second": 0.2},
        }
    )
    text = "\n".join(lines)
    assert "| together: requests/s | at least 25 | 14 | **missed** |" in text
    assert "| alone: ms per decode step (goal 2.7) | at most 3.2 |  | not measured |" in text
    assert "| two cards: over one | at least 1.9 | 1.92 | met |" in text
    assert "quoted, not measured here" in text
    assert "- together: cut short: 9 of 480 requests" in text


def test_the_proofs_table_needs_none_of_them() -> None:
    assert any("not measured" in line for line in proof.table_of({}))
