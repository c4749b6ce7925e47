# SPDX-License-Identifier: Apache-2.0
"""What the guard does beside its loop, and how often it tells a failure."""

import asyncio
import logging

import pytest

from gpuwarden.guard.jobs import MOST_TOLD, Jobs


async def fail(why: str) -> None:
    raise OSError(why)


async def succeed() -> None:
    return


async def done(jobs: Jobs, *work: tuple[str, str]) -> None:
    """Each ``(what, why it fails, or nothing)`` in turn, to its end."""
    for what, why in work:
        task = jobs.spawn(fail(why) if why else succeed(), what)
        await asyncio.wait([task])
        await asyncio.sleep(0)  # its callbacks come in the next turn


async def test_a_failure_is_told_once_and_again_only_after_it_went_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobs = Jobs(lambda: None)
    with caplog.at_level(logging.WARNING):
        await done(jobs, ("see", "no bus"), ("see", "no bus"), ("see", ""), ("see", "no bus"))
    assert caplog.messages == ["could not see: no bus"] * 2


async def test_work_named_after_processes_leaves_nothing_behind() -> None:
    jobs = Jobs(lambda: None)
    await done(jobs, *((f"see what PID {pid} left", "") for pid in range(100)))
    assert jobs.remembered == 0
    await done(jobs, *((f"see what PID {pid} left", "no bus") for pid in range(100)))
    assert jobs.remembered == MOST_TOLD


async def test_a_failure_that_has_no_words_is_told_by_its_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail_silently() -> None:
        raise TimeoutError

    jobs = Jobs(lambda: None)
    with caplog.at_level(logging.WARNING):
        await asyncio.wait([jobs.spawn(fail_silently(), "see")])
        await asyncio.sleep(0)
    assert caplog.messages == ["could not see: TimeoutError"]
