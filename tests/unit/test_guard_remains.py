# SPDX-License-Identifier: Apache-2.0
"""What is said of a worker's remains, and that real processes are found, whatever they did."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import GatewayWorker, Holder, ScanData, ThermalData
from gpuwarden.guard import aftermath
from gpuwarden.guard.aftermath import look_after
from gpuwarden.guard.kernel import Process, generations, processes, survivors
from gpuwarden.guard.remains import MIB, Life, Remains, figures, held_bytes
from gpuwarden.values import ThermalState

THREE = (Process(10, 1, 5), Process(11, 10, 6), Process(12, 1, 7))
LIFE = Life(0, 0, 10, "/w", THREE, held_bytes=1234 * MIB, used_bytes=2000 * MIB)


def holder(pid: int, worker: int | None, vram_bytes: int | None = MIB) -> Holder:
    return Holder(
        pid=pid,
        start_time_ticks=1,
        holder_class="ours" if worker is not None else "foreign",
        command="python3",
        uid=1,
        worker=worker,
        vram_bytes=vram_bytes,
    )


@pytest.mark.parametrize(
    ("remains", "words"),
    [
        (Remains(LIFE, (), 766 * MIB), "3 processes ended, 1,234 MiB freed"),
        (Remains(LIFE, (), None), "3 processes ended, the card's memory was not measured"),
        (
            Remains(LIFE, THREE[2:], 766 * MIB),
            "2 processes ended, 1,234 MiB freed, 1 process can't be ended (PID 12)",
        ),
        (
            Remains(LIFE, (), 1900 * MIB, [holder(77, None), holder(5, 1)]),
            "3 processes ended, 100 MiB freed, 1,134 MiB did not come back, held by python3 "
            "(PID 77, foreign)",
        ),
        (Remains(LIFE, (), 866 * MIB), "3 processes ended, 1,134 MiB freed"),
    ],
)
def test_remains_are_told_with_figures(remains: Remains, words: str) -> None:
    assert figures(remains) == words
    assert remains.is_clean == ("can't" not in words and "did not come back" not in words)


def test_what_a_worker_holds_is_the_scans_to_say_else_its_own_if_it_is_alone() -> None:
    told = GatewayWorker(
        number=0, pid=1, state="ready", outstanding=0, requests=0, failures=0, vram_reserved_bytes=9
    )
    scanned = [holder(1, 0, 4), holder(2, 0, 3), holder(3, 1, 50)]
    assert held_bytes(0, scanned, told, is_alone=False) == 7
    assert held_bytes(0, [holder(1, 0, None)], told, is_alone=True) == 9
    assert held_bytes(0, [holder(3, 1, 50)], told, is_alone=True) == 0  # it has lost its card
    assert held_bytes(0, None, told, is_alone=True) == 9
    assert held_bytes(0, None, told, is_alone=False) is None
    assert held_bytes(0, None, None, is_alone=True) is None


def test_generations_are_counted_from_whoever_has_no_parent_in_the_group() -> None:
    assert generations([]) == 0
    assert generations(THREE) == 2
    chain = [Process(10 + n, 9 + n, n) for n in range(5)]
    assert generations(chain) == 5
    assert generations([Process(1, 2, 0), Process(2, 1, 0)]) == 2  # numbers that came twice


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(names, "thermal_snapshot_file", lambda index: tmp_path / f"t{index}")
    monkeypatch.setattr(names, "scan_snapshot_file", lambda index: tmp_path / f"s{index}")
    monkeypatch.setattr(aftermath, "GONE_SECONDS", 0.3)
    monkeypatch.setattr(aftermath, "BACK_SECONDS", 0.5)
    monkeypatch.setattr(aftermath, "READ_AFTER_SECONDS", 0.0)
    return tmp_path


def publish_memory(folder: Path, used_bytes: int) -> None:
    data = ThermalData(
        index=0,
        uuid="GPU-0",
        name="A100",
        pci_address="",
        numa_node=0,
        state=ThermalState.NORMAL,
        since=1,
        vram_used_bytes=used_bytes,
    )
    SnapshotWriter(folder / "t0", "thermal@0").publish(data)


@pytest.fixture
def escaped() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a session of its own."""
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def living(pid: int, folder: Path) -> Process:
    """It, by a control group of its own."""
    (folder / "w").mkdir(exist_ok=True)
    (folder / "w" / "cgroup.procs").write_text(f"{pid}\n")
    (found,) = processes("/w", folder)
    return found


def down(life: Life) -> bool:
    """No next life."""
    return True


async def test_a_process_that_lives_on_is_found_named_and_killed(
    folder: Path, escaped: subprocess.Popen[bytes]
) -> None:
    process = living(escaped.pid, folder)
    assert process.parent == os.getpid()
    life = Life(0, 0, process.pid, "", (process,))
    remains = await look_after(life, down)
    assert (remains.left, remains.ended) == ((process,), 0)
    aftermath.kill([Process(process.pid, 1, process.start_time_ticks + 1)])  # another's by now
    assert escaped.poll() is None
    aftermath.kill(remains.left)
    assert escaped.wait(5) == -signal.SIGKILL
    assert (await look_after(life, down)).is_clean
    aftermath.kill(remains.left)  # gone: no error


async def test_a_next_life_that_systemd_tells_of_late_is_nothing_left(
    folder: Path, escaped: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aftermath, "processes", partial(processes, root=folder))
    next_life = living(escaped.pid, folder)
    ended = Life(0, 0, 10, "/w", (Process(10, 1, 1),))
    words = iter([True, True])  # it is down, says systemd, twice; then that it is not
    remains = await look_after(ended, lambda _: next(words, False))
    assert (remains.left, remains.ended) == ((), 1)
    assert (await look_after(ended, down)).left == (next_life,)


def test_a_zombie_is_no_survivor(folder: Path) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    process = living(child.pid, folder)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert survivors([process]) == ()
    child.wait()


async def test_memory_counts_that_was_read_after_the_end(folder: Path) -> None:
    life = Life(0, 0, 10, "", (), held_bytes=100, used_bytes=500)
    publish_memory(folder, 500)
    look = asyncio.create_task(look_after(life, down))
    await asyncio.sleep(0)
    publish_memory(folder, 400)
    assert (await look).freed_bytes == 100
    assert (await look_after(life, down)).freed_bytes is None


async def test_memory_that_does_not_come_back_is_said_with_its_holders(folder: Path) -> None:
    scan = ScanData(
        gpu_index=0, gpu_uuid="GPU-0", state="scanning", scans=3, holders=[holder(77, None)]
    )
    SnapshotWriter(folder / "s0", "scan@0").publish(scan)
    look = asyncio.create_task(
        look_after(Life(0, 0, 10, "", (), held_bytes=100 * MIB, used_bytes=500 * MIB), down)
    )
    await asyncio.sleep(0)
    publish_memory(folder, 500 * MIB)
    words = figures(await look)
    assert words.endswith("100 MiB did not come back, held by python3 (PID 77, foreign)")
