# SPDX-License-Identifier: Apache-2.0
"""What is said of two recordings."""

from typing import Any

import pytest

from gpuwarden.baseline.comparison import NO_DIFFERENCE, Comparison, Verdict, compare
from gpuwarden.baseline.figures import FIGURES
from gpuwarden.baseline.recording import RecordedCard
from gpuwarden.chart.baseline import baseline_drawing
from gpuwarden.chart.svg import svg
from gpuwarden.cli.baseline_screen import compare_lines, frames, show_lines
from tests.unit.baseline.recordings import recording, requests, window


def verdicts(comparison: Comparison) -> dict[str, Verdict]:
    return {each.figure.key: each.verdict for each in comparison.figures}


def test_twice_the_same_is_no_difference_that_can_be_told_from_noise() -> None:
    comparison = compare(recording("before"), recording("after"))
    assert comparison.verdict == NO_DIFFERENCE
    assert comparison.warnings == ()
    assert comparison.changes == ()


def test_of_a_hundred_pairs_of_the_same_few_are_told_apart_and_a_seventh_more_is_found() -> None:
    def told(times: float) -> int:
        pairs = ((recording(f"a{n}"), recording(f"b{n}", 0.8 * times)) for n in range(100))
        return sum(compare(a, b).verdict != NO_DIFFERENCE for a, b in pairs)

    assert told(1.0) <= 5
    assert told(1.15) >= 90


def test_a_quicker_node_is_better_in_what_is_quicker() -> None:
    comparison = compare(recording("before", 2.0), recording("after", 0.8))
    found = verdicts(comparison)
    assert found["mean_seconds"] is found["p95_seconds"] is Verdict.BETTER
    assert found["throughput"] is Verdict.SAME
    assert comparison.verdict.startswith("after is better in time to the answer (mean),")


def test_the_other_way_round_it_is_worse() -> None:
    comparison = compare(recording("after", 0.8), recording("before", 2.0))
    assert verdicts(comparison)["mean_seconds"] is Verdict.WORSE
    assert "worse in time to the answer" in comparison.verdict


def test_percentiles_within_one_bucket_are_not_told_apart() -> None:
    comparison = compare(recording("before", 0.9), recording("after", 0.6))
    p50 = next(each for each in comparison.figures if each.figure.key == "p50_seconds")
    assert verdicts(comparison)["mean_seconds"] is Verdict.BETTER
    assert p50.verdict is Verdict.SAME


@pytest.mark.parametrize(("celsius", "verdict"), [(70.5, Verdict.SAME), (72, Verdict.WORSE)])
def test_heat_is_told_by_whole_degrees(celsius: float, verdict: Verdict) -> None:
    hotter = recording("b", windows_wanted=12)
    hot = [window(n, celsius=celsius) for n in range(12)]
    comparison = compare(recording("a"), hotter.model_copy(update={"windows": hot}))
    assert verdicts(comparison)["hottest_celsius"] is verdict


def test_one_changed_setting_is_named_and_two_are_warned_of() -> None:
    settings = {"[workers] max_batch": "8", "processors: CPU governor": "performance"}
    one = compare(recording("a"), recording("b", settings=settings))
    assert [(c.name, c.a, c.b) for c in one.changes] == [("[workers] max_batch", "4", "8")]
    assert one.warnings == ()
    settings["processors: CPU governor"] = "powersave"
    two = compare(recording("a"), recording("b", settings=settings))
    assert len(two.changes) == 2
    assert "2 settings changed between them: one change at a time" in two.warnings[0]


def test_what_moved_while_it_was_recorded_is_not_compared_and_is_said() -> None:
    settings = {"[workers] max_batch": "8"}
    moved = recording("b", settings=settings, unsettled=["[workers] max_batch"])
    comparison = compare(recording("a"), moved)
    assert comparison.changes == ()
    assert "[workers] max_batch changed: it is not compared" in comparison.warnings[0]


def test_what_only_one_of_them_could_see_is_no_change() -> None:
    assert compare(recording("a"), recording("b", settings={})).changes == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "ba9876543210", "host": "node-2"}, "two nodes: a is of node-1, b of node-2"),
        (
            {"cards": [RecordedCard(index=0, uuid="GPU-9", name="NVIDIA A100")]},
            "other cards: NVIDIA H200; NVIDIA A100",
        ),
        (
            {"cards": [RecordedCard(index=0, uuid="GPU-9", name="NVIDIA H200")]},
            "cards of the same kind, and not the same ones",
        ),
        ({"models": []}, "other models: gemma; none"),
        ({"simulated": True}, "SIMULATED"),
        ({"windows_wanted": 40}, "b was cut short: 12 of 40 windows"),
    ],
)
def test_what_makes_two_recordings_hard_to_compare_is_said(
    changes: dict[str, Any], words: str
) -> None:
    assert any(
        words in each for each in compare(recording("a"), recording("b", **changes)).warnings
    )


def test_without_traffic_only_heat_power_and_memory_are_compared() -> None:
    idle = [window(n, requests=requests(0.8, count=0)) for n in range(12)]
    comparison = compare(recording("a"), recording("b").model_copy(update={"windows": idle}))
    found = verdicts(comparison)
    assert found["mean_seconds"] is found["p99_seconds"] is Verdict.UNKNOWN
    assert found["power_watts"] is Verdict.SAME
    assert "nothing was answered while b was recorded" in comparison.warnings


def test_another_load_is_warned_of() -> None:
    busy = [window(n, requests=requests(0.8, count=150)) for n in range(12)]
    comparison = compare(recording("a"), recording("b").model_copy(update={"windows": busy}))
    assert "another load: 4 and 6 requests a second" in comparison.warnings[0]


def test_windows_of_other_lengths_are_warned_of() -> None:
    longer = recording("b", window_seconds=300.0)
    assert "windows of 25 and 300 s" in compare(recording("a"), longer).warnings[0]


def test_windows_without_a_front_door_are_left_out_and_said() -> None:
    windows = list(recording("b").windows)
    windows[3] = window(3, requests=None, problem="the front door was restarted")
    comparison = compare(recording("a"), recording("b").model_copy(update={"windows": windows}))
    assert "b: the front door was restarted in 1 windows" in comparison.warnings
    assert verdicts(comparison)["mean_seconds"] is Verdict.SAME


def test_a_recording_cut_short_at_once_says_nothing() -> None:
    comparison = compare(recording("a"), recording("b", windows=2))
    assert set(verdicts(comparison).values()) == {Verdict.UNKNOWN}
    assert comparison.verdict == "nothing can be said: too little was recorded"
    assert "b was cut short: 2 of 12 windows" in comparison.warnings


def test_the_screen_has_each_figure_and_what_changed() -> None:
    settings = {"[workers] max_batch": "8"}
    comparison = compare(recording("before", 2.0), recording("after", 0.8, settings=settings))
    text = "\n".join(compare_lines(comparison))
    assert "all verdicts together with 95% confidence" in text
    assert "Set otherwise (1):" in text
    for each in FIGURES:
        assert each.title in text
    shown = "\n".join(show_lines(recording("before", 2.0, note="as delivered")))
    assert "12 windows; as delivered" in shown


def test_the_drawing_has_a_frame_for_each_figure_that_is_known() -> None:
    comparison = compare(recording("before", 2.0), recording("after & <later>", 0.8))
    picture = svg(baseline_drawing("before", "after & <later>", frames(comparison)))
    assert "time to the answer (p99) in s" in picture
    assert "hottest memory" not in picture
    assert "after &amp; &lt;later&gt;" in picture


def test_nothing_known_is_drawn_as_such() -> None:
    assert "nothing is known of either" in svg(baseline_drawing("a", "b", []))
