# SPDX-License-Identifier: Apache-2.0
"""Histories of cards, plain and absurd."""

import math

from hypothesis import strategies as st

from gpuwarden.chart.series import Moment
from gpuwarden.values import ThermalState

START_SECONDS = 1_800_000_000.0

figures = st.none() | st.floats() | st.floats(20, 110)
times = st.floats() | st.floats(START_SECONDS, START_SECONDS + 7200)
moments = st.builds(
    Moment,
    at_seconds=times,
    state=st.sampled_from(ThermalState),
    celsius=figures,
    celsius_lowest=figures,
    celsius_highest=figures,
    memory_celsius=figures,
    watts=figures,
    watts_highest=figures,
    limit_watts=figures,
)


def hot_hour(seconds: int = 3600) -> list[Moment]:
    """A load that goes up and down under a limit that follows; an alert, a critical second."""
    hour = []
    for second in range(seconds):
        state = ThermalState.ALERT if 1000 <= second < 2000 else ThermalState.NORMAL
        if second == 1500:
            state = ThermalState.CRITICAL
        limit = 500.0 if state is not ThermalState.NORMAL else 700.0
        watts = min(limit, 400 + 300 * math.sin(second / 100))
        hour.append(
            Moment(
                START_SECONDS + second,
                state,
                40 + watts * 0.05,
                39 + watts * 0.05,
                41 + watts * 0.05,
                50 + watts * 0.05,
                watts,
                watts + 5,
                limit,
            )
        )
    return hour
