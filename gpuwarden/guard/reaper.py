# SPDX-License-Identifier: Apache-2.0
"""Ends processes that hold a card's memory: those that dead workers left, and others on request.

Before anything is ended, what the scan said is held against systemd and /proc once more; after it,
the card's memory is read again.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpuwarden import names
from gpuwarden.bus.errors import Busy, Failed, InvalidArgument, Unavailable
from gpuwarden.control.snapshot import (
    Snapshot,
    SnapshotError,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.control.states import Holder, Orphan, ScanData, ThermalData
from gpuwarden.guard import orphans
from gpuwarden.guard.facts import unit_facts
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.guard.orphans import Held, Key, NotToBeReapedError, Sighting
from gpuwarden.guard.processes import (
    Identity,
    Process,
    SurvivedError,
    end_process,
    in_initial_namespace,
    read_process,
)
from gpuwarden.guard.scans import Scans
from gpuwarden.guard.telling_care import tell_orphan, tell_reaped, tell_survived
from gpuwarden.systemd.units import Systemd

VERIFY_SECONDS = 10.0  # a scan takes that long at most; with the kill less than a call's 25 s
LOOK_SECONDS = 0.2
FREED_ENOUGH = 0.9  # of what the process held: the driver rounds


@dataclass
class Reaper:
    """What is remembered of the processes on the cards, and their end.

    :ivar is_on_host: whether PIDs mean the same here as to the driver; else nobody is ended.
    :ivar found: told of an orphan: PID, card, class.
    :ivar reaped: told of one's end: PID, bytes freed.
    """

    systemd: Systemd
    jobs: Jobs
    is_on_host: bool = field(default_factory=in_initial_namespace)
    found: Callable[[int, int, str], None] = lambda pid, gpu, orphan_class: None
    reaped: Callable[[int, int], None] = lambda pid, freed_bytes: None
    _scans: Scans = field(default_factory=Scans)
    _sightings: dict[Key, Sighting] = field(default_factory=dict)
    _ending: set[Identity] = field(default_factory=set)
    _survivors: set[Identity] = field(default_factory=set)
    _gone: set[Identity] = field(default_factory=set)

    # --- each look

    def look(self, scans: Scans, now_seconds: float) -> list[Orphan]:
        """Take a look at all cards; those who hold memory and are none of a running worker."""
        self._scans = scans
        sightings: dict[Key, Sighting] = {}
        for gpu in scans.doubts:
            scan = scans.known.get(gpu)
            sightings |= orphans.next_sightings(
                self._sightings,
                gpu,
                scan.data if scan else None,
                scan.identity if scan else (0, 0),
                now_seconds,
                time.time_ns() // 1000,
            )
        listed = {_identity(each.holder) for each in sightings.values()}
        self._survivors &= listed
        self._gone &= listed  # a scan from before its end still has it
        self._sightings = {
            key: each for key, each in sightings.items() if _identity(each.holder) not in self._gone
        }
        return orphans.orphans(self._sightings.values())

    def act(self, *, reaps: bool) -> None:
        """Tell of those that are new, and end what dead workers have left.

        :param reaps: whether anybody is ended without being named.
        """
        for each in orphans.to_tell(self._sightings):
            self._sightings[each.key] = replace(each, is_told=True)
            tell_orphan(each.gpu, each.holder)
            self.found(each.holder.pid, each.gpu, each.holder.holder_class)
        for each in orphans.to_reap(self._sightings) if reaps and self.is_on_host else []:
            identity = _identity(each.holder)
            if identity not in self._ending | self._survivors:
                what = f"end PID {identity.pid}, which worker {each.holder.worker} left"
                self.jobs.spawn(self._reap_by_ourselves(each), what)

    async def _reap_by_ourselves(self, sighting: Sighting) -> None:
        if await self._is_left_over(sighting.holder):
            await self._end_or_tell(Held(sighting.holder, (sighting.gpu,)))
        elif sighting.key in self._sightings:  # look again after as many scans
            self._sightings[sighting.key] = replace(self._sightings[sighting.key], dead_scans=0)

    # --- on request

    async def reap(self, pid: int) -> int:
        """End one orphan that somebody named; the bytes of card memory that came free.

        :raises BusError: it isn't to be ended, or could not be.
        """
        self._check_right_to_end(pid)
        listed = [each.pid for each in orphans.orphans(self._sightings.values())]
        scans = {gpu: scan.data for gpu, scan in self._scans.known.items()}
        try:
            held = orphans.chosen(pid, scans, self._scans.doubts, listed)
        except NotToBeReapedError as error:
            raise (Unavailable if error.is_unknown else InvalidArgument)(str(error)) from error
        if held.holder.holder_class == "ours-dead" and not await self._is_left_over(held.holder):
            raise InvalidArgument(f"PID {pid} is of a worker that runs, or gone")
        if _identity(held.holder) in self._ending:
            raise Busy(f"PID {pid} is being ended already")
        try:
            return await self._end(held)
        except SurvivedError as error:
            raise Failed(str(error)) from error

    def _check_right_to_end(self, pid: int) -> None:
        if not self.is_on_host:
            raise Unavailable("the guard runs in a PID namespace of its own: it ends nobody")
        if pid in (1, os.getpid()):
            raise InvalidArgument(f"PID {pid} is {'init' if pid == 1 else 'the guard itself'}")
        process = read_process(pid)
        if process is None:
            raise InvalidArgument(f"there is no process of PID {pid}")
        if process.is_kernel_thread:
            raise InvalidArgument(f"PID {pid} is a thread of the kernel")

    # --- before a start

    async def clean_before_start(self, gpu: int, worker: int) -> int:
        """End what a worker's former lives left on its card; the bytes that came free.

        To be called while its unit is down. Where the card's holders are unknown, nobody is ended.
        """
        scan = self._scans.known.get(gpu)
        if scan is None or not self.is_on_host:
            return 0
        left = [
            each
            for each in orphans.left_by(scan.data, worker)
            if _identity(each) not in self._ending | self._survivors
            and await self._is_left_over(each)
        ]
        return sum(await asyncio.gather(*(self._end_or_tell(Held(each, (gpu,))) for each in left)))

    # --- the inside

    async def _is_left_over(self, holder: Holder) -> bool:
        """Whether systemd and /proc agree that it is of a worker's life that has ended."""
        process = read_process(holder.pid)
        if process is None or process.identity != _identity(holder) or holder.worker is None:
            return False
        properties = await self.systemd.properties(names.worker_unit(holder.worker))
        return is_left_over(process, unit_facts(properties))

    async def _end_or_tell(self, held: Held) -> int:
        try:
            return await self._end(held)
        except SurvivedError:
            return 0  # told where it happened

    async def _end(self, held: Held) -> int:
        """End a process and see what comes free. Raises SurvivedError."""
        identity = _identity(held.holder)
        if identity in self._ending:
            return 0  # it is told where it was begun
        before = {gpu: used_bytes(gpu) for gpu in held.gpus}
        self._ending.add(identity)
        try:
            if not await end_process(identity):
                return 0
            self._gone.add(identity)
            ended_nanoseconds = boottime_nanoseconds()
            freed = await self._freed(held, before, ended_nanoseconds)
        except SurvivedError as error:
            self._survivors.add(identity)
            tell_survived(held.gpus[0], held.holder, str(error))
            raise
        finally:
            self._ending.discard(identity)
        tell_reaped(held.gpus[0], held.holder, freed)
        self.reaped(identity.pid, freed or 0)
        return freed or 0

    async def _freed(
        self, held: Held, before: Mapping[int, int | None], ended_nanoseconds: int
    ) -> int | None:
        """The bytes that came free on all its cards; None where nobody could measure it."""
        expected = held.holder.vram_bytes
        per_card = [drop(gpu, before[gpu], expected, ended_nanoseconds) for gpu in held.gpus]
        measured = [each for each in await asyncio.gather(*per_card) if each is not None]
        return sum(measured) if measured else None


def is_left_over(process: Process, unit: UnitFacts) -> bool:
    """Whether a process that was a worker's is none of its unit's present life."""
    if process.state in ("Z", "X") or process.is_kernel_thread or process.identity.pid == 1:
        return False
    if unit.active_state in ("inactive", "failed"):
        return True
    if unit.active_state == "deactivating" or not unit.control_group:
        return False  # systemd is about to end what is in it
    inside = f"{process.control_group}/".startswith(f"{unit.control_group}/")
    return process.identity.pid != unit.main_pid and not inside


async def drop(
    gpu: int, before: int | None, expected: int | None, after_nanoseconds: int
) -> int | None:
    """By how much the card's used memory has fallen since; waits until it has, or a while.

    :param expected: what is waited for, and the most that counts: others come and go meanwhile.
    :param after_nanoseconds: only what was read since then counts, by CLOCK_BOOTTIME.
    """
    fallen = None
    end_seconds = time.monotonic() + VERIFY_SECONDS
    while before is not None and time.monotonic() < end_seconds:
        now = used_bytes(gpu, after_nanoseconds)
        if now is not None:
            fallen = max(0, before - now)
            # What is published now may have been read a moment before.
            if fallen and fallen >= FREED_ENOUGH * (expected or 0):
                break
        await asyncio.sleep(LOOK_SECONDS)
    return fallen if fallen is None or expected is None else min(fallen, expected)


def used_bytes(gpu: int, after_nanoseconds: int = 0) -> int | None:
    """The card's memory in use, by whoever has published it last; None: nobody lately."""
    read = [
        _used(names.thermal_snapshot_file(gpu), ThermalData, after_nanoseconds),
        _used(names.scan_snapshot_file(gpu), ScanData, after_nanoseconds),
    ]
    return max((each for each in read if each is not None), default=(0, None))[1]


def _used(
    path: Path, kind: type[ThermalData] | type[ScanData], after_nanoseconds: int
) -> tuple[int, int] | None:
    """When it was published, and the bytes in use; None where that is old or unknown."""
    try:
        snapshot: Snapshot[Any] = read_snapshot(path, kind)
    except SnapshotError:
        return None  # the other one may know
    written, used = snapshot.boottime_nanoseconds, snapshot.data.vram_used_bytes
    if (
        used is None
        or written <= after_nanoseconds
        or not snapshot.is_fresh(boottime_nanoseconds())
    ):
        return None
    return written, used


def _identity(holder: Holder) -> Identity:
    return Identity(holder.pid, holder.start_time_ticks)
