# SPDX-License-Identifier: Apache-2.0
import pytest

from gpuwarden.chart.series import Moment
from gpuwarden.cli.live.trail import TRAIL_SECONDS, Sample, longer, parts, with_past
from gpuwarden.values import ThermalState
from tests.unit.cli.samples import NOW_UNIX_SECONDS as NOW
from tests.unit.cli.samples import gpu


def celsius(sample: Sample) -> float | None:
    return sample.celsius


def test_a_trail_keeps_the_last_minutes_and_no_more() -> None:
    trail = longer({}, [gpu(0)], NOW)
    for second in range(1, 1000):
        trail = longer(trail, [gpu(0)], NOW + second)
    assert len(trail[0]) == TRAIL_SECONDS + 1
    assert trail[0][-1] == Sample(NOW + 999, 41.4, 122.4, 700.0, 0.25, 1 / 141)


def test_a_card_that_is_gone_leaves_no_trail() -> None:
    trail = longer(longer({}, [gpu(0), gpu(1)], NOW), [gpu(1)], NOW + 1)
    assert list(trail) == [1]


def test_what_is_unknown_stays_unknown() -> None:
    unread = ("temperature_celsius", "power_watts", "power_limit_watts", "utilization")
    blind = gpu(0, **dict.fromkeys(unread))
    lost = blind.model_copy(update={"vram_used_bytes": None, "vram_total_bytes": None})
    assert longer({}, [lost], NOW)[0] == (Sample(NOW),)
    assert parts(longer({}, [lost], NOW)[0], celsius, NOW, 5) == [None] * 5


def test_the_past_comes_before_what_was_seen_and_never_twice() -> None:
    trail = longer({}, [gpu(0)], NOW)
    moments = [
        Moment(NOW - 60, ThermalState.NORMAL, celsius=50.0, celsius_highest=55.0, watts=100.0),
        Moment(NOW, ThermalState.NORMAL, celsius=99.0),
    ]
    assert [each.celsius for each in with_past(trail, 0, moments)[0]] == [55.0, 41.4]


def test_each_part_of_a_chart_is_the_most_of_its_time() -> None:
    samples = [Sample(NOW - 70, 50.0), Sample(NOW - 65, 80.0), Sample(NOW, 60.0)]
    assert parts(samples, celsius, NOW, 5) == [None, None, 80.0, None, 60.0]


@pytest.mark.parametrize("seconds", [0.0, 1.0, 13.0, 59.0])
def test_a_chart_moves_on_by_whole_characters(seconds: float) -> None:
    samples = [Sample(NOW - 30, 50.0)]
    drawn = parts(samples, celsius, NOW + seconds, 5)
    assert drawn in ([None, None, None, 50.0, None], [None, None, None, None, 50.0])
