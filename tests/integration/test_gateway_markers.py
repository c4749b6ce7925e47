# SPDX-License-Identifier: Apache-2.0
"""The short forms of the campaigns ``markers`` and ``markers-short`` of ``make soak``."""

import logging

import pytest

from tests.soak.markers import SHORT, campaign

REQUESTS = 3000
# On a machine that has no time a request may wait or run until its deadline.
MAY_END = {200, 429, 503, 504}


async def test_nobody_gets_anothers_answer_and_nothing_of_a_request_is_in_any_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = await campaign(REQUESTS, seed=1, kill_seconds=3.0, log_level="debug")
    assert seen.wrong == []
    assert seen.begun >= REQUESTS
    assert seen.answered > 0.8 * REQUESTS, seen
    assert seen.kills >= 2
    assert seen.hung_up > 0
    assert seen.jobs > 0
    assert set(seen.statuses) <= MAY_END, seen.statuses
    logs = caplog.text + "".join(capfd.readouterr())
    assert "is ready with echo" in logs  # the workers' logs are in it
    assert "marker-" not in logs


async def test_nobody_gets_anothers_answer_from_a_gpu_thread_that_listens() -> None:
    seen = await campaign(2 * REQUESTS, seed=2, kill_seconds=3.0, mix=SHORT)
    assert seen.wrong == []
    assert seen.answered > 0.9 * 2 * REQUESTS, seen
    assert set(seen.statuses) <= MAY_END, seen.statuses
