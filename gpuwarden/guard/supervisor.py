"""The supervisor: keeps the facts, lets the pure parts decide, acts through systemd.

One turn a second, or at once when systemd reports a change: read, decide, act, publish.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from gpuwarden import __version__
from gpuwarden.bus.errors import BusError
from gpuwarden.control.snapshot import (
    Snapshot,
    SnapshotError,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.control.states import GatewayData, GuardData, PlanData, PortHolder, ThermalData
from gpuwarden.guard.facts import unit_facts
from gpuwarden.guard.hook_starter import HookStarter
from gpuwarden.guard.kernel import allowed_cpus, process_count
from gpuwarden.guard.lifecycle import Intent, UnitFacts, next_intent, should_start
from gpuwarden.guard.status import SERVING, Seen, summarise
from gpuwarden.names import (
    GATEWAY_SOCKET_UNIT,
    GATEWAY_STATE_FILE,
    NUMA_UNIT,
    PLAN_FILE,
    PORT_HOLDER_FILE,
    SHUTDOWN_UNIT,
    THERMAL_TARGET,
    thermal_snapshot_file,
    worker_unit,
)
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import JobError, Systemd
from gpuwarden.values import ServiceState, WorkerState

log = logging.getLogger(__name__)

NO_CARDS_RETRY_SECONDS = 10.0  # design: no card or driver is looked for again every 10 s
JOB_TIMEOUT_SECONDS = 900.0  # longer than any worker may take to load
BUS_RETRY_SECONDS = 5.0  # a bus or a systemd that did not answer


@dataclass
class Supervisor:
    """Follows and drives the units of this node."""

    systemd: Systemd
    publish: Callable[[GuardData], None]
    former: GuardData | None = None
    faults: tuple[str, ...] = ()
    current: GuardData | None = None
    _plan: PlanData | None = None
    _units: dict[str, UnitFacts] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)
    _intents: dict[int, Intent] = field(default_factory=dict)
    _job_errors: dict[int, str] = field(default_factory=dict)
    _was_ready: set[int] = field(default_factory=set)
    _was_up: bool = False
    _opened: bool = False
    _opening: asyncio.Task[None] | None = None
    _digest: str = ""
    _next_look_seconds: float = 0.0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _told: dict[str, str] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._hooks = HookStarter(self.systemd, self.former)

    async def begin(self) -> None:
        """Subscribe to systemd and learn what already runs; starts nothing."""
        await self.systemd.subscribe(self._all_changed)
        for unit in (SHUTDOWN_UNIT, GATEWAY_SOCKET_UNIT):
            await self._follow(unit)
        await self._read_plan()
        await self.look()

    async def look(self) -> GuardData:
        """Refresh what changed, decide, and publish the state."""
        for unit in sorted(self._stale):
            self._stale.discard(unit)  # before the question: a change during it counts
            try:
                self._units[unit] = unit_facts(await self.systemd.properties(unit))
            except BusError:
                self._stale.add(unit)
                raise
        old, self.current = self.current, summarise(self._seen())
        self._note_changes(old, self.current)
        self.publish(self.current)
        return self.current

    async def turn(self) -> None:
        """Wait for a change, at most a second; then look and act."""
        try:
            async with asyncio.timeout(1.0):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        await self._read_plan()
        self._hooks.follow((await self.look()).gpus)
        if not self._stopping():
            self._act(time.monotonic())

    def open_up(self, configuration_digest: str) -> None:
        """Begin to start what is to run; tried again until it has worked."""
        self._digest = configuration_digest
        self._opening = self._spawn(self._open_up(), "start thermal guards and workers")

    async def _open_up(self) -> None:
        """First the helper that will stop the workers with us, then the cards' guards, then they.

        Our own Wants= can't start the thermal guards: the target got its list from the planner
        after systemd had made up its mind.
        """
        await self.systemd.start(SHUTDOWN_UNIT, timeout_seconds=60)
        self._spawn(self.systemd.start(THERMAL_TARGET, timeout_seconds=60), "start thermal guards")
        if self._plan is None or self._plan.configuration_digest != self._digest:
            await self.replan()
        self._opened = True
        self._start_workers()

    def _start_workers(self) -> None:
        """Start every planned worker that is down, but for those an operator had stopped."""
        for number in self._numbers():
            wanted = number not in self._stopped_before()
            intent = self._intents.setdefault(number, Intent(wanted))
            facts = self._units.get(worker_unit(number), UnitFacts())
            if intent.wanted and facts.active_state in ("inactive", "failed"):
                self._start_worker(number)

    def _stopped_before(self) -> set[int]:
        """Workers that were down by an operator's will when a former guard of this boot died."""
        if self.former is None or self.former.state is ServiceState.STOPPING:
            return set()
        return {worker.number for worker in self.former.workers if not worker.wanted}

    def wake(self) -> None:
        """Have the next turn begin now."""
        self._wake.set()

    async def replan(self) -> None:
        """Have the placement planned again; new workers start, running ones are left alone.

        :raises JobError: the planner failed.
        """
        await self.systemd.reload(NUMA_UNIT, timeout_seconds=60)
        await self._read_plan()
        await self.systemd.start(THERMAL_TARGET, timeout_seconds=60)
        if self._opened:
            self._start_workers()
        self.wake()

    # -- reading -----------------------------------------------------------------------------

    async def _read_plan(self) -> None:
        try:
            plan = read_snapshot(PLAN_FILE, PlanData)
        except SnapshotError as error:
            if self._plan is not None:
                log.warning("keeping the former plan: %s", error)
            return
        if plan.data != self._plan:
            for worker in plan.data.workers:
                await self._follow(worker_unit(worker.number))
            self._plan = plan.data

    async def _follow(self, unit: str) -> None:
        if unit not in self._units:
            await self.systemd.watch(unit, self._changed)
            self._units[unit] = UnitFacts()
        self._stale.add(unit)

    def _all_changed(self) -> None:
        self._stale.update(self._units)
        self._wake.set()

    def _changed(self, unit: str) -> None:
        self._stale.add(unit)
        self._wake.set()

    def _numbers(self) -> list[int]:
        return [worker.number for worker in self._plan.workers] if self._plan else []

    def _seen(self) -> Seen:
        units = {n: self._units[worker_unit(n)] for n in self._numbers()}
        now = boottime_nanoseconds()
        cards = self._plan.cards if self._plan else []
        thermal = {
            card.index: snapshot.data
            for card in cards
            if (snapshot := self._fresh(thermal_snapshot_file(card.index), ThermalData, now))
        }
        gateway = self._fresh(GATEWAY_STATE_FILE, GatewayData, now)
        return Seen(
            version=__version__,
            plan=self._plan,
            units=units,
            job_errors=dict(self._job_errors),
            processes={n: process_count(facts.control_group) for n, facts in units.items()},
            cpus={n: allowed_cpus(facts.main_pid) for n, facts in units.items()},
            thermal=thermal,
            gateway=gateway.data if gateway else None,
            was_ready=frozenset(self._was_ready),
            unwanted=frozenset(n for n, intent in self._intents.items() if not intent.wanted),
            stopping=self._stopping(),
            faults=(*self.faults, *self._socket_fault()),
        )

    @staticmethod
    def _fresh(path: Any, kind: Any, now_nanoseconds: int) -> Snapshot[Any] | None:
        try:
            snapshot: Snapshot[Any] = read_snapshot(path, kind)
        except SnapshotError:
            return None  # its absence is what the state says: blind, or a silent gateway
        return snapshot if snapshot.is_fresh(now_nanoseconds) else None

    def _stopping(self) -> bool:
        """The shutdown unit has gone down: no worker is to be started any more."""
        self._was_up |= self._units[SHUTDOWN_UNIT].active_state == "active"
        return self._was_up and self._units[SHUTDOWN_UNIT].active_state != "active"

    def _socket_fault(self) -> tuple[str, ...]:
        if self._units[GATEWAY_SOCKET_UNIT].active_state != "failed":
            return ()
        try:
            holder = read_snapshot(PORT_HOLDER_FILE, PortHolder).data
        except SnapshotError:
            return ("the HTTP port can't be opened (systemctl status medgemma-gateway.socket)",)
        return (
            f"{holder.address} is held by {holder.command} (PID {holder.pid}): stop it, or give "
            "the front door another port with `systemctl edit medgemma-gateway.socket`",
        )

    # -- acting ------------------------------------------------------------------------------

    def _act(self, now_seconds: float) -> None:
        assert self.current is not None
        for worker in self.current.workers:
            if worker.state in SERVING:
                self._was_ready.add(worker.number)
                self._job_errors.pop(worker.number, None)
            before = self._intents.get(worker.number, Intent())
            intent = next_intent(before, worker.state, now_seconds)
            self._intents[worker.number] = intent
            if intent.retry_at_seconds and intent != before:
                wait = intent.retry_at_seconds - now_seconds
                tell(
                    Event.WORKER_RETRY,
                    f"worker {worker.number} failed, next try in {wait:.0f} s: {worker.last_error}",
                    logging.WARNING,
                    WORKER=worker.number,
                    REASON=worker.last_error,
                )
            if should_start(intent, worker.state, now_seconds):
                self._intents[worker.number] = replace(intent, retry_at_seconds=None)
                self._start_worker(worker.number)
        if now_seconds >= self._next_look_seconds:
            self._next_look_seconds = now_seconds + NO_CARDS_RETRY_SECONDS
            self._mend()

    def _mend(self) -> None:
        """What is tried again every 10 s: a beginning, a node without cards, a socket."""
        if not self._opened and self._opening is not None and self._opening.done():
            self.open_up(self._digest)
        if self._opened and (self._plan is None or not self._plan.cards):
            self._spawn(self.replan(), "look for cards")
        if self._units[GATEWAY_SOCKET_UNIT].active_state == "failed":
            self._spawn(
                self.systemd.start(GATEWAY_SOCKET_UNIT, timeout_seconds=30), "open the HTTP port"
            )

    def _start_worker(self, number: int) -> None:
        async def start() -> None:
            try:
                await self.systemd.start(worker_unit(number), JOB_TIMEOUT_SECONDS)
            except JobError as error:
                self._job_errors[number] = str(error)
                raise
            except BusError:
                before = self._intents.get(number, Intent())
                again = time.monotonic() + BUS_RETRY_SECONDS
                self._intents[number] = replace(before, retry_at_seconds=again)
                raise

        self._spawn(start(), f"start worker {number}")

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Do ``work`` beside the loop, unless the same is already being done."""
        for running in self._tasks:
            if running.get_name() == what:
                work.close()
                return running
        task = asyncio.create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()
        if task.cancelled():
            return
        name, error = task.get_name(), task.exception()
        text = str(error) if error else ""
        if text and self._told.get(name) != text:
            log.warning("could not %s: %s", name, text)
        self._told[name] = text

    # -- telling -----------------------------------------------------------------------------

    @staticmethod
    def _note_changes(old: GuardData | None, new: GuardData) -> None:
        if old is None or old.state != new.state or old.reasons != new.reasons:
            level = logging.WARNING if new.reasons else logging.INFO
            tell(
                Event.SERVICE_STATE,
                f"{new.state}" + (": " + "; ".join(new.reasons) if new.reasons else ""),
                level,
                STATE_OLD=old.state if old else "",
                STATE_NEW=new.state,
                REASON="; ".join(new.reasons),
            )
        before = {worker.number: worker.state for worker in old.workers} if old else {}
        for worker in new.workers:
            former = before.get(worker.number)
            if former != worker.state and WorkerState.BUSY not in (former, worker.state):
                tell(
                    Event.WORKER_STATE,
                    f"worker {worker.number}: {former or 'unknown'} -> {worker.state}",
                    WORKER=worker.number,
                    GPU=worker.gpu,
                    GPU_UUID=worker.gpu_uuid,
                    STATE_OLD=former or "",
                    STATE_NEW=worker.state,
                    REASON=worker.last_error,
                )
