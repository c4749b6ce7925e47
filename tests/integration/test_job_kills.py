# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from tests.integration import job_kills


async def test_each_202_ends_in_exactly_one_result_however_often_it_is_killed(
    tmp_path: Path,
) -> None:
    figures = await job_kills.campaign(tmp_path, kills=6, seed=7)
    assert figures.faults == []
    assert figures.kills == 6
    assert figures.deaths > 0
    assert figures.accepted > 6
