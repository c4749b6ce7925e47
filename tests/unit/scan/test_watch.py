# SPDX-License-Identifier: Apache-2.0
"""The loop round one card: what is published while the driver answers, hangs, or is let go of."""

import logging
from pathlib import Path

import pytest

from gpuwarden.scan import watch as watch_module
from gpuwarden.scan.classify import holder
from gpuwarden.scan.outcome import NotSeen, Seen
from tests.unit.scan.evidences import CUSTOMS, GIB, LISTED, OPENED, STRANGER, WORKER
from tests.unit.scan.watching import Running, StandInScanner, watching
from tests.unit.thermal.leases import lease

HELD = holder(WORKER, LISTED, CUSTOMS)
SEEN = Seen("GPU-0", (HELD,), GIB, 40 * GIB, 0)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(watch_module, "PUBLISH_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(watch_module, "LEASE_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(watch_module, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(watch_module, "LOOK_AGAIN_SECONDS", 0.05)
    return Running(tmp_path, StandInScanner(SEEN))


async def test_it_is_ready_once_it_has_said_something(running: Running) -> None:
    async with watching(running):
        data = await running.until("scanning")
        assert (data.holders, data.vram_used_bytes, data.unexplained_bytes) == ([HELD], GIB, 0)
        await running.happens(lambda: running.scanner.looks >= 3)
        await running.happens(lambda: (running.published() or data).scans >= 3)
        assert running.listener.readies == 1
        assert running.listener.statuses[-1] == "GPU 0: 1.0 of 40.0 GiB in use, by 1 ours"


async def test_a_hanging_driver_makes_it_blind_and_it_claims_nothing(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with watching(running):
        await running.until("scanning")
        running.scanner.free.clear()
        data = await running.until("blind", "has not answered")
        assert (data.holders, data.vram_used_bytes, data.gpu_uuid) == ([], None, "GPU-0")
        fed = running.listener.fed
        await running.happens(lambda: len(running.listener.statuses) > fed + 2)
        assert running.listener.fed == fed  # the watchdog ends it if that lasts
        running.scanner.free.set()
        assert (await running.until("scanning")).holders == [HELD]
        await running.happens(lambda: running.listener.fed > fed)
    assert sum("is not known: the driver has not" in text for text in caplog.messages) == 1
    assert "GPU 0: who holds its memory is known again" in caplog.messages


async def test_a_driver_that_hangs_from_the_start_is_ready_blind(running: Running) -> None:
    running.scanner.free.clear()
    async with watching(running):
        await running.until("blind", "has not answered")
        assert running.listener.readies == 1


async def test_a_lost_card_is_blind_with_its_reason_and_looked_for_again(running: Running) -> None:
    running.scanner.answer = NotSeen("GPU-0", "the card is lost")
    async with watching(running):
        data = await running.until("blind", "the card is lost")
        assert (data.scans, data.holders) == (0, [])
        running.scanner.answer = SEEN
        await running.until("scanning")


async def test_a_list_that_is_not_whole_says_so(running: Running) -> None:
    running.scanner.answer = Seen("GPU-0", (HELD,), None, None, None, "permission denied")
    async with watching(running):
        data = await running.until("scanning", "permission denied")
        assert (data.holders, data.unexplained_bytes) == ([HELD], None)


async def test_a_release_closes_the_card_and_nothing_is_asked_until_it_ends(
    running: Running,
) -> None:
    async with watching(running):
        await running.until("scanning")
        running.lease = lease("released")
        data = await running.until("released", "released until")
        assert (running.scanner.closed, data.holders, data.gpu_uuid) == (1, [], "GPU-0")
        looks = running.scanner.looks
        written = len(running.listener.statuses)
        await running.happens(lambda: len(running.listener.statuses) > written + 2)
        assert running.scanner.looks == looks
        running.lease = None
        await running.until("scanning")


async def test_a_scan_that_starts_in_a_release_never_opens_the_card(running: Running) -> None:
    running.lease = lease("released")
    async with watching(running):
        await running.until("released")
        assert running.scanner.looks == 0


async def test_an_override_is_none_of_its_business(running: Running) -> None:
    running.lease = lease("critical")
    async with watching(running):
        await running.until("scanning")


async def test_a_driver_that_hangs_is_not_said_to_be_released(running: Running) -> None:
    async with watching(running):
        await running.until("scanning")
        running.scanner.free.clear()
        await running.until("blind")
        running.lease = lease("released")
        written = len(running.listener.statuses)
        await running.happens(lambda: len(running.listener.statuses) > written + 3)
        assert (running.published() or running.watch.data).state == "blind"
        running.scanner.free.set()
        await running.until("released")


@pytest.mark.parametrize("released", [False, True])
async def test_as_long_as_a_former_process_hangs_the_driver_is_not_asked(
    running: Running, released: bool
) -> None:
    running.former = [4242]
    running.lease = lease("released") if released else None
    async with watching(running):
        await running.until("blind", "its former process (PID 4242) hangs in the driver")
        assert (running.scanner.looks, running.scanner.closed) == (0, 0)
        assert running.listener.readies == 1
        running.former = []
        await running.until("released" if released else "scanning")


async def test_memory_of_nobody_known_is_told_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = holder(STRANGER, OPENED, CUSTOMS)
    running.scanner.answer = Seen("GPU-0", (hidden,), GIB, 40 * GIB, 0)
    async with watching(running):
        await running.until("scanning")
        running.scanner.answer = Seen("GPU-0", (), GIB, 40 * GIB, GIB)
        await running.happens(lambda: "unexplained" in running.listener.statuses[-1])
        looks = running.scanner.looks
        await running.happens(lambda: running.scanner.looks > looks + 2)
    assert caplog.messages == [
        "GPU 0: memory is held by python3 (PID 4242, session-3.scope), which the driver does not "
        "list",
        "GPU 0: 1024 MiB of its memory are in use, and nobody was found who holds them",
    ]


async def test_at_its_end_it_lets_go_of_the_card(running: Running) -> None:
    async with watching(running):
        await running.until("scanning")
    await running.watch.stop()
    assert running.scanner.closed == 1
