# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.nvml.limits import PLAUSIBLE_CELSIUS, CardLimits, Offsets, combine
from gpuwarden.nvml.vocabulary import Threshold

degrees = st.none() | st.floats(-300, 300)


def combined(named: dict[Threshold, float | None], offsets: Offsets) -> CardLimits:
    return combine(
        named,
        offsets,
        power_minimum_watts=None,
        power_maximum_watts=None,
        power_default_watts=None,
    )


def test_two_sources_that_disagree_give_the_lower_and_a_note() -> None:
    offsets = Offsets(40, 40, 0, None, None)
    limits = combined({Threshold.MAXIMUM_OPERATING: 90}, offsets)
    assert limits.maximum_operating_celsius == 80
    assert limits.notes == (
        "maximum operating threshold is 90 C by name, 80 C by T.Limit: the lower holds",
    )


def test_nonsense_is_not_a_limit() -> None:
    offsets = Offsets(40, -200, 0, 0, 0)
    limits = combined({Threshold.SHUTDOWN: 0, Threshold.SLOWDOWN: 65535}, offsets)
    assert limits == CardLimits()


@given(st.dictionaries(st.sampled_from(Threshold), degrees), st.tuples(*[degrees] * 5))
def test_every_limit_is_plausible_or_unknown(
    named: dict[Threshold, float | None],
    values: tuple[float | None, float | None, float | None, float | None, float | None],
) -> None:
    limits = combined(named, Offsets(*values))
    low, high = PLAUSIBLE_CELSIUS
    for limit in (
        limits.maximum_operating_celsius,
        limits.slowdown_celsius,
        limits.shutdown_celsius,
        limits.memory_maximum_celsius,
    ):
        assert limit is None or low <= limit <= high
