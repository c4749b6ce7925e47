# SPDX-License-Identifier: Apache-2.0
"""Real processes on cards that only the snapshots know: who is ended, and what is said of it."""

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import BusError, Busy, Failed, InvalidArgument, Unavailable
from gpuwarden.control.states import HolderClass
from gpuwarden.guard import orphans, processes, reaper
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.processes import end_process
from gpuwarden.guard.reaper import Reaper
from gpuwarden.guard.scans import read_scans
from gpuwarden.names import worker_unit
from gpuwarden.systemd.units import Systemd
from tests.integration.private_bus import private_bus
from tests.integration.scanned_cards import GIBIBYTE, ScannedCards, holder
from tests.integration.systemd_peer import POLICY, SystemdPeer, systemd
from tests.integration.test_processes import another_of_number, now_ticks, obstinate, sleeper
from tests.machines import card
from tests.waiting import wait_until

DEADLINE_SECONDS = 30.0


@dataclass
class Node:
    """Two cards, worker 0's unit, and the reaper over them."""

    reaper: Reaper
    cards: ScannedCards
    systemd: SystemdPeer
    signals: list[tuple[object, ...]] = field(default_factory=list)

    def look(self, at_seconds: float = 0.0, *, reaps: bool = True) -> list[int]:
        """One turn of the guard; the PIDs that it lists."""
        listed = self.reaper.look(read_scans([card(0), card(1)]), at_seconds)
        self.reaper.act(reaps=reaps)
        return [each.pid for each in listed]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - the end of a job beside the loop
                await asyncio.sleep(0.01)


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(reaper, "VERIFY_SECONDS", 1.0)
    monkeypatch.setattr(reaper, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.5)
    cards = ScannedCards(tmp_path, monkeypatch)
    cards.scan(0)
    cards.scan(1)
    async with private_bus([POLICY]) as bus, systemd(bus) as peer:
        peer.add(worker_unit(0))
        connection = Bus(bus.address)
        await connection.connect()
        made = Node(Reaper(Systemd(connection), Jobs(lambda: None), is_on_host=True), cards, peer)
        made.reaper.found = lambda *told: made.signals.append(("found", *told))
        made.reaper.reaped = lambda *told: made.signals.append(("reaped", *told))
        yield made
        await connection.close()


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    process = sleeper()
    yield process
    process.kill()
    process.wait()


def see(node: Node, pid: int, holder_class: HolderClass, gpu: int = 0) -> None:
    node.cards.scan(gpu, holder(pid, holder_class))


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = [getattr(each, "fields", {}).get("GPUWARDEN_EVENT") for each in caplog.records]
    return [each for each in told if each]


async def freeing(
    node: Node,
    work: "asyncio.Task[Any]",
    gpus: dict[int, int],
    *children: "subprocess.Popen[bytes]",
) -> Any:
    """What the work gives, while the cards' guards publish that so much came free in the end."""
    while not work.done():
        if all(each.poll() is not None for each in children):
            for gpu, freed_bytes in gpus.items():
                node.cards.use(gpu, 10 * GIBIBYTE - freed_bytes)
        await asyncio.sleep(0.02)
    return await work


async def test_what_a_dead_worker_left_is_ended_after_a_minute_and_what_came_free_is_said(
    node: Node, child: "subprocess.Popen[bytes]", caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node.cards.use(0, 10 * GIBIBYTE)
    for second in (0, 10, 20, 30, 40, 59):
        see(node, child.pid, "ours-dead")
        assert node.look(second) == [child.pid]
    assert node.signals == [("found", child.pid, 0, "ours-dead")]
    assert child.poll() is None
    see(node, child.pid, "ours-dead")
    node.look(60)
    reaped = asyncio.create_task(node.until(lambda: len(node.signals) == 2))
    await freeing(node, reaped, {0: GIBIBYTE}, child)
    assert child.wait() == -signal.SIGTERM
    assert node.signals[1] == ("reaped", child.pid, GIBIBYTE)
    assert events(caplog) == ["orphan-found", "orphan-reaped"]
    assert f"PID {child.pid} (sleep, left by worker 0) was ended: freed 1024 MiB" in caplog.text
    assert node.look(61) == []  # though the last scan is from before its end


@pytest.mark.parametrize("kind", ["foreign", "container", "desktop", "hidden"])
async def test_others_are_shown_and_left_alone(
    node: Node, child: "subprocess.Popen[bytes]", kind: HolderClass
) -> None:
    for second in range(0, 600, 10):
        see(node, child.pid, kind)
        assert node.look(second) == [child.pid]
    assert node.signals == [("found", child.pid, 0, kind)]
    assert child.poll() is None


def see_dead_for_a_minute(node: Node, pid: int, *, reaps: bool = True) -> None:
    for second in (0, 30, 60):
        see(node, pid, "ours-dead")
        node.look(second, reaps=reaps)


async def test_the_guard_believes_systemd_more_than_a_scan(
    node: Node, child: "subprocess.Popen[bytes]"
) -> None:
    unit = node.systemd.units[worker_unit(0)]
    node.systemd.change(worker_unit(0), "active")
    unit.main_pid = child.pid
    unit.control_group = "/medgemma.slice/medgemma-worker@0.service"
    see_dead_for_a_minute(node, child.pid)
    await node.until(lambda: not orphans.to_reap(node.reaper._sightings))  # it looks anew
    assert child.poll() is None
    assert node.signals == [("found", child.pid, 0, "ours-dead")]


@pytest.mark.parametrize("switch", ["configured", "namespace"])
async def test_nobody_is_ended_where_that_is_switched_off_or_numbers_mean_others(
    node: Node, child: "subprocess.Popen[bytes]", switch: str
) -> None:
    node.reaper.is_on_host = switch != "namespace"
    see_dead_for_a_minute(node, child.pid, reaps=switch != "configured")
    assert not node.reaper.jobs._running
    assert child.poll() is None


async def test_a_number_used_again_is_never_touched(node: Node) -> None:
    first = sleeper()
    seen = holder(first.pid, "ours-dead")
    first.kill()
    first.wait()
    wait_until(lambda: now_ticks() > seen.start_time_ticks)
    with another_of_number(seen.pid) as other:
        for second in (0, 30, 60, 90):
            node.cards.scan(0, seen)
            node.look(second)
        await node.until(lambda: not node.reaper.jobs._running)
        with pytest.raises(InvalidArgument, match="runs, or gone"):
            await node.reaper.reap(seen.pid)
        assert await node.reaper.clean_before_start(0, 0) == 0
        assert other.poll() is None


# --- on request


@pytest.mark.parametrize("kind", ["foreign", "container", "desktop", "hidden", "ours-dead"])
async def test_on_request_anybody_in_the_list_is_ended_and_what_came_free_is_answered(
    node: Node, child: "subprocess.Popen[bytes]", kind: HolderClass
) -> None:
    node.cards.use(0, 10 * GIBIBYTE)
    see(node, child.pid, kind)
    node.look()
    reaping = asyncio.create_task(node.reaper.reap(child.pid))
    assert await freeing(node, reaping, {0: GIBIBYTE}, child) == GIBIBYTE
    assert child.wait() == -signal.SIGTERM
    assert node.signals == [("reaped", child.pid, GIBIBYTE)]


async def test_memory_that_did_not_come_back_is_said(
    node: Node, child: "subprocess.Popen[bytes]", caplog: pytest.LogCaptureFixture
) -> None:
    node.cards.use(0, 10 * GIBIBYTE)
    see(node, child.pid, "foreign")
    node.look()
    quarter = GIBIBYTE // 4
    reaping = asyncio.create_task(node.reaper.reap(child.pid))
    assert await freeing(node, reaping, {0: quarter}, child) == quarter
    assert "was ended: freed 256 MiB of 1024 MiB" in caplog.text


async def test_memory_that_nobody_measures_is_not_claimed(
    node: Node, child: "subprocess.Popen[bytes]", caplog: pytest.LogCaptureFixture
) -> None:
    see(node, child.pid, "foreign")
    node.look()
    assert await node.reaper.reap(child.pid) == 0
    assert "freed memory could not be measured" in caplog.text


async def test_a_process_on_two_cards_is_ended_once_and_both_are_counted(
    node: Node, child: "subprocess.Popen[bytes]"
) -> None:
    for gpu in (0, 1):
        node.cards.use(gpu, 10 * GIBIBYTE)
        see(node, child.pid, "foreign", gpu)
    assert node.look() == [child.pid, child.pid]
    reaping = asyncio.create_task(node.reaper.reap(child.pid))
    both = {0: GIBIBYTE, 1: GIBIBYTE}
    assert await freeing(node, reaping, both, child) == 2 * GIBIBYTE


async def refused(node: Node, pid: int) -> BusError:
    with pytest.raises(BusError) as error:
        await node.reaper.reap(pid)
    return error.value


async def test_nobody_else_can_be_named(node: Node, child: "subprocess.Popen[bytes]") -> None:
    see(node, child.pid, "ours")
    node.look()
    own = os.getpid()
    for pid, why in (
        (0, "no process of PID 0"),
        (1, "is init"),
        (2**31, "no process"),
        (own, "is the guard itself"),
        (os.getppid(), "holds no memory of a card"),
        (child.pid, "which runs"),
    ):
        error = await refused(node, pid)
        assert isinstance(error, InvalidArgument)
        assert why in str(error)
    assert child.poll() is None


async def test_nothing_is_ended_by_a_scan_that_can_not_be_believed(
    node: Node, child: "subprocess.Popen[bytes]"
) -> None:
    see(node, child.pid, "foreign")
    node.look()
    node.cards.vanish(0)
    assert node.look() == []
    error = await refused(node, child.pid)
    assert isinstance(error, Unavailable)
    assert "GPU 0: it is not scanned" in str(error)
    node.reaper.is_on_host = False
    assert isinstance(await refused(node, child.pid), Unavailable)


async def test_one_request_at_a_time_for_one_process(node: Node) -> None:
    child = obstinate()
    see(node, child.pid, "foreign")
    node.look()
    first = asyncio.create_task(node.reaper.reap(child.pid))
    await node.until(lambda: node.reaper._ending)
    assert isinstance(await refused(node, child.pid), Busy)
    await first
    assert child.wait() == -signal.SIGKILL


async def test_one_that_hangs_in_the_kernel_is_told_of_once_and_tried_no_more(
    node: Node,
    child: "subprocess.Popen[bytes]",
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process in an uninterruptible sleep can't be made at will: its end is kept from us."""

    async def never(descriptor: int, seconds: float) -> bool:
        return False

    monkeypatch.setattr(processes, "_ended", never)
    see_dead_for_a_minute(node, child.pid)
    await node.until(lambda: "could not be ended" in caplog.text)
    await node.until(lambda: not node.reaper.jobs._running)
    see(node, child.pid, "ours-dead")
    node.look(90)
    assert not node.reaper.jobs._running
    assert events(caplog).count("orphan-not-reaped") == 1
    assert "hangs in the kernel" in caplog.text


async def test_a_request_for_one_that_survives_fails_with_the_reason(
    node: Node, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(descriptor: int, seconds: float) -> bool:
        return False

    monkeypatch.setattr(processes, "_ended", never)
    see(node, child.pid, "foreign")
    node.look()
    error = await refused(node, child.pid)
    assert isinstance(error, Failed)
    assert "hangs in the kernel" in str(error)


# --- before a start


async def test_a_start_is_cleaned_of_what_a_former_life_left_at_once(node: Node) -> None:
    left = [sleeper(), sleeper()]
    neighbours = sleeper()
    node.cards.use(0, 10 * GIBIBYTE)
    node.cards.scan(
        0,
        holder(left[0].pid, "ours-dead"),
        holder(left[1].pid, "ours"),  # it was alive when it was scanned
        holder(neighbours.pid, "ours", worker=1),
    )
    node.look()
    cleaning = asyncio.create_task(node.reaper.clean_before_start(0, 0))
    assert await freeing(node, cleaning, {0: 2 * GIBIBYTE}, *left) == 2 * GIBIBYTE
    assert neighbours.poll() is None
    await end_process(
        processes.Identity(neighbours.pid, holder(neighbours.pid, "ours").start_time_ticks)
    )
    neighbours.wait()


async def test_a_start_on_a_card_that_is_not_known_ends_nobody(
    node: Node, child: "subprocess.Popen[bytes]"
) -> None:
    see(node, child.pid, "ours-dead")
    node.look()
    node.cards.vanish(0)
    node.look()
    assert await node.reaper.clean_before_start(0, 0) == 0
    assert child.poll() is None
