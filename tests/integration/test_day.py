# SPDX-License-Identifier: Apache-2.0
"""The short form of the campaign ``day`` of ``make soak``."""

from pathlib import Path

from tests.soak.day.campaign import on_host

SECONDS = 12.0  # a worker's start may take some of them


async def test_a_day_of_mixed_load_leaves_no_process_larger(tmp_path: Path) -> None:
    figures = await on_host(tmp_path, SECONDS, seed=4)
    print(figures)
    assert figures.faults == []
