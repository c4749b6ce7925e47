# SPDX-License-Identifier: Apache-2.0
"""The short form of the campaigns ``overload`` of ``make soak``."""

from pathlib import Path

from tests.integration.short_campaign import at_best, fresh
from tests.soak.overload import Model, campaign

MODEL = Model("0.1 s a batch", 0.1, 2, measured_seconds=1.0)


async def test_who_is_accepted_in_an_overload_is_answered_and_all_others_are_told_at_once(
    tmp_path: Path,
) -> None:
    figures = await at_best(lambda: campaign(fresh(tmp_path), MODEL, seconds=1.0, seed=1))
    assert figures.faults == []
    statuses = [one.status for one in figures.outcomes]
    assert statuses.count(429) > statuses.count(200) > 0
