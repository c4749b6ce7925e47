# SPDX-License-Identifier: Apache-2.0
"""The short form of the campaigns ``worker-kills`` of ``make soak``."""

from pathlib import Path

import pytest

from tests.integration.short_campaign import at_best, fresh
from tests.soak.worker_kills import campaign


@pytest.mark.parametrize(("workers", "kills"), [(2, 2), (1, 1)])
async def test_a_busy_workers_death_costs_a_bounded_wait_and_no_request(
    tmp_path: Path, workers: int, kills: int
) -> None:
    figures = await at_best(lambda: campaign(fresh(tmp_path), kills, seed=3, workers=workers))
    assert figures.faults == []
    assert figures.done == kills
    assert all(kill.suspects for kill in figures.kills)
    assert len(figures.asked) > kills
