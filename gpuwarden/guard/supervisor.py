# SPDX-License-Identifier: Apache-2.0
"""The supervisor: keeps the facts, lets the pure parts decide, acts through systemd.

One turn a second, or at once when systemd reports a change: read, decide, act, publish.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import Any

from gpuwarden import __version__
from gpuwarden.control.host import TuningData
from gpuwarden.control.states import GatewayData, GuardData, PlanData, ThermalData
from gpuwarden.guard.care import Care
from gpuwarden.guard.drains import Drains
from gpuwarden.guard.holds import Holds
from gpuwarden.guard.hook_starter import HookStarter
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.kernel import (
    Process,
    allowed_cpus,
    inference_priority,
    processes,
    running_workers,
)
from gpuwarden.guard.lifecycle import UnitFacts, is_outdated
from gpuwarden.guard.lives import Lives
from gpuwarden.guard.operations import Operations
from gpuwarden.guard.placement import Placement
from gpuwarden.guard.published import card_holders, gateway_state, port_fault, thermal_states
from gpuwarden.guard.recent import Recent
from gpuwarden.guard.remains import held_bytes
from gpuwarden.guard.resuming import resume
from gpuwarden.guard.rolling import Rolling
from gpuwarden.guard.silence import Silence
from gpuwarden.guard.status import Seen, summarise
from gpuwarden.guard.telling import tell_changes
from gpuwarden.guard.units import Units
from gpuwarden.guard.workers import Workers
from gpuwarden.names import (
    GATEWAY_SOCKET_UNIT,
    NUMA_UNIT,
    SCAN_TARGET,
    SHUTDOWN_UNIT,
    THERMAL_TARGET,
    worker_number,
    worker_unit,
)
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import JobError, Systemd

log = logging.getLogger(__name__)

PLAN_AGAIN = "plan the placement again"
NO_CARDS_RETRY_SECONDS = 10.0  # design: no card or driver is looked for again every 10 s


class Supervisor:
    """Follows and drives the units of this node.

    :ivar current: the state as last put together; None before the first look.
    :ivar tuning: says how the host is tuned.
    :ivar operations: what is done with workers by order, ``rolling`` with all of them.
    :ivar recent: the last events.
    """

    def __init__(
        self,
        systemd: Systemd,
        publish: Callable[[GuardData], None],
        former: GuardData | None = None,
        faults: tuple[str, ...] = (),
    ) -> None:
        self.systemd = systemd
        self.publish = publish
        self.faults = faults
        self.current: GuardData | None = None
        self.tuning: Callable[[], TuningData | None] = lambda: None
        self.recent = Recent(former)
        self._holds = Holds(former)
        self._wake = asyncio.Event()
        self._jobs = Jobs(self._wake.set)
        self._lives = Lives(self._jobs, former)
        self._units = Units(systemd, self._wake.set, self._heard)
        self._workers = Workers(
            systemd, self._jobs, self._holds, self._lives, former, self._ensure_plan
        )
        self.operations = Operations(
            self, self._workers, self._holds, self._lives, self._jobs, Drains(self._jobs)
        )
        self.rolling = Rolling(self, self.operations, self._holds, self._jobs)
        self._former = former
        self._looked = asyncio.Event()
        self._care = Care(systemd, self._jobs, self.operations.recycle)
        self.reaper = self._care.reaper
        self._workers.clean = self.reaper.clean_before_start
        self._hooks = HookStarter(systemd, former)
        self._placement = Placement()
        self._silence = Silence(time.monotonic())
        self._replanning = 0
        self._was_outdated = False
        self._was_up = False
        self._opened = False
        self._opening: asyncio.Task[None] | None = None
        self._next_look_seconds = 0.0

    async def begin(self) -> None:
        """Subscribe to systemd and learn what already runs; starts nothing."""
        await self.systemd.subscribe(self._units.all_changed)
        for unit in (SHUTDOWN_UNIT, GATEWAY_SOCKET_UNIT):
            await self._units.follow(unit)
        await self._read_plan()
        await self._units.ask()
        await self.look()

    async def look(self) -> bool:
        """Refresh what changed, decide, and publish the state; False where it may be old."""
        is_complete = await self._units.refresh()
        self.republish()
        if is_complete:
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
        return is_complete

    def republish(self) -> GuardData:
        """Publish what is known and wanted now, without asking anybody."""
        old, new = self.current, summarise(self._seen(time.monotonic()))
        tell_changes(old, new)
        self.current = self.recent.added_to(old, new)
        self.publish(self.current)
        return self.current

    async def next_look(self) -> GuardData:
        """The state after the next look that all has answered."""
        await self._looked.wait()
        assert self.current is not None, "looked at just now"
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
        is_complete = await self.look()
        # On old facts nothing is decided; there is nobody then who would carry it out, either.
        if is_complete and self.current is not None:
            self._hooks.follow(self.current.gpus)
            if not self.is_stopping():
                self._act(self.current, time.monotonic())

    def open_up(self, configuration_digest: str) -> None:
        """Begin to start what is to run; tried again until it has worked."""
        self._placement.accepted_digest = configuration_digest
        self._opening = self._jobs.spawn(self._open_up(), "start thermal guards and workers")

    async def _open_up(self) -> None:
        """First the helper that will stop the workers with us, then the cards' guards, then they.

        Our own Wants= can't start the thermal guards: the target got its list from the planner
        after systemd had made up its mind.
        """
        await self.systemd.start(SHUTDOWN_UNIT, timeout_seconds=60)
        self._jobs.spawn(
            self.systemd.start(THERMAL_TARGET, timeout_seconds=60), "start thermal guards"
        )
        self._start_scans()
        if self._placement.fault():
            await self.replan()
        self._opened = True
        self._start_workers()
        former, self._former = self._former, None  # once
        resume(former, self.operations, self.rolling)

    def _start_scans(self) -> None:
        """Not waited for: without them the service knows less, and serves as well."""
        self._jobs.spawn(self.systemd.start(SCAN_TARGET, timeout_seconds=60), "start the scans")

    def _start_workers(self) -> None:
        """Start every planned worker that is down, but for those stopped or held back."""
        planned = self._plan.workers if self._plan else []
        busy = self.operations.under_way
        self._workers.start_all(
            {
                each.number: (each.gpu_index, self._unit(each.number))
                for each in planned
                if each.number not in busy
            }
        )

    def occupants(self, gpu_index: int) -> list[int]:
        """The workers that have this card open, or are being started on it."""
        return self._workers.occupants(self.current, gpu_index) if self.current else []

    def releasing(self, gpu_index: int) -> AbstractContextManager[None]:
        """While it lasts, and until the release is seen, no worker of the card is started."""
        return self._holds.releasing(gpu_index)

    def cards(self) -> list[int]:
        """All cards, those that are lost among them."""
        return [card.index for card in self._plan.cards] if self._plan else []

    def present_cards(self) -> list[int]:
        """The cards that are there, by the plan."""
        return [card.index for card in self._plan.cards if card.present] if self._plan else []

    def beside(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do something that the loop doesn't wait for; ``what`` as in "could not ..."."""
        self._jobs.spawn(work, what)

    def wake(self) -> None:
        """Have the next turn begin now."""
        self._wake.set()

    async def replan(self, configuration_digest: str | None = None) -> None:
        """Have the placement planned again; new workers start, running ones are left alone.

        :param configuration_digest: of the configuration that was just accepted, if one was.
        :raises JobError: the planner failed.
        """
        self._replanning += 1
        try:
            if configuration_digest is not None:
                self._placement.accepted_digest = configuration_digest
            await self.systemd.reload(NUMA_UNIT, timeout_seconds=60)
            await self._read_plan()
            await self.systemd.start(THERMAL_TARGET, timeout_seconds=60)
            self._start_scans()
        finally:
            self._replanning -= 1
        if self._opened:
            self._start_workers()
        self.wake()

    def outdated_workers(self) -> list[int]:
        """The workers that run by a former plan or by former settings."""
        planned = self._plan.workers if self._plan else []
        return [
            each.number
            for each in planned
            if is_outdated(self._unit(each.number), each.revised_monotonic_microseconds)
        ]

    async def _ensure_plan(self) -> None:
        """Return when there is a plan that holds; a stale one is made anew first.

        :raises JobError: there is none for all that.
        """
        fault = self._placement.fault()
        if not fault:
            return
        tell(Event.PLAN_STALE, f"planning again: {fault}", logging.WARNING, REASON=fault)
        await self._jobs.spawn(self.replan(), PLAN_AGAIN)
        if fault := self._placement.fault():
            raise JobError(fault)

    # -- reading -----------------------------------------------------------------------------

    @property
    def _plan(self) -> PlanData | None:
        return self._placement.plan

    async def _read_plan(self) -> None:
        if self._placement.read() and self._plan:
            for worker in self._plan.workers:
                await self._units.follow(worker_unit(worker.number))

    def _heard(self, unit: str, told: UnitFacts) -> None:
        number = worker_number(unit)
        if number is not None:
            self._lives.hear(number, told)

    def _unit(self, number: int) -> UnitFacts:
        return self._units[worker_unit(number)]

    def _seen(self, now_seconds: float) -> Seen:
        numbers = [worker.number for worker in self._plan.workers] if self._plan else []
        units = {number: self._unit(number) for number in numbers}
        cards = self._plan.cards if self._plan else []
        thermal = thermal_states(cards)
        gateway = gateway_state()
        self._holds.look(self.cards(), thermal, now_seconds)
        self._silence.look(cards, thermal, self._running_by_card(), now_seconds)
        found = {n: processes(facts.control_group) for n, facts in units.items()}
        self._look_at_lives(found, thermal, gateway)
        return Seen(
            version=__version__,
            plan=self._plan,
            units=units,
            job_errors=dict(self._workers.job_errors),
            processes=found,
            operations=self.operations.words(),
            last_errors=dict(self._lives.errors),
            last_exits=dict(self._lives.exits),
            out_of_service=self._holds.out_of_service(),
            cpus={n: allowed_cpus(facts.main_pid) for n, facts in units.items()},
            priorities={n: inference_priority(facts.main_pid) for n, facts in units.items()},
            thermal=thermal,
            gateway=gateway,
            care=self._care.look(self._plan, units, gateway, now_seconds),
            tuning=self.tuning(),
            was_ready=frozenset(self._workers.was_ready),
            unwanted=frozenset(n for n in numbers if not self._workers.intent(n).wanted),
            held=self._holds.all_held(),
            stopping=self.is_stopping(),
            faults=(
                *self.faults,
                *self._port_faults(),
                *self._plan_faults(),
                *self.rolling.faults,
                *((self._units.fault,) if self._units.fault else ()),
            ),
            strays=frozenset(running_workers() - set(numbers)) if self._plan else frozenset(),
        )

    def _running_by_card(self) -> dict[int, list[int]]:
        running: dict[int, list[int]] = {}
        for worker in self._plan.workers if self._plan else []:
            if self._unit(worker.number).main_pid > 0:
                running.setdefault(worker.gpu_index, []).append(worker.number)
        return running

    def _look_at_lives(
        self,
        found: Mapping[int, tuple[Process, ...]],
        thermal: Mapping[int, ThermalData],
        gateway: GatewayData | None,
    ) -> None:
        planned = self._plan.workers if self._plan else []
        holders = {index: card_holders(index) for index in {each.gpu_index for each in planned}}
        told = {each.number: each for each in gateway.workers} if gateway else {}
        for each in planned:
            card = thermal.get(each.gpu_index)
            alone = sum(other.gpu_index == each.gpu_index for other in planned) == 1
            held = held_bytes(each.number, holders[each.gpu_index], told.get(each.number), alone)
            used = card.vram_used_bytes if card else None
            self._lives.look(each, self._unit(each.number), found[each.number], held, used)

    def is_stopping(self) -> bool:
        """The shutdown unit has gone down: no worker is to be started any more."""
        self._was_up |= self._units[SHUTDOWN_UNIT].active_state == "active"
        return self._was_up and self._units[SHUTDOWN_UNIT].active_state != "active"

    def _port_faults(self) -> tuple[str, ...]:
        return (port_fault(),) if self._units[GATEWAY_SOCKET_UNIT].active_state == "failed" else ()

    def _plan_faults(self) -> tuple[str, ...]:
        if not self._opened or self._replanning or self._plan is None:
            return ()
        fault = self._placement.fault()
        return (fault,) if fault else ()

    # -- acting ------------------------------------------------------------------------------

    def _act(self, current: GuardData, now_seconds: float) -> None:
        self._workers.act(current, now_seconds, self.operations.under_way.keys())
        self.operations.look(current)
        self.rolling.look(current)
        self._care.act(current, now_seconds)
        self._settle(any(worker.outdated for worker in current.workers))
        if now_seconds >= self._next_look_seconds:
            self._next_look_seconds = now_seconds + NO_CARDS_RETRY_SECONDS
            self._mend()

    def _settle(self, outdated: bool) -> None:
        """Once all run by the plan, what it spared for those of a former one goes."""
        if self._was_outdated and not outdated:
            self._jobs.spawn(self.replan(), PLAN_AGAIN)
        self._was_outdated = outdated

    def _mend(self) -> None:
        """What is tried again every 10 s: a beginning, a stale plan, no cards, a socket."""
        if not self._opened and self._opening is not None and self._opening.done():
            self.open_up(self._placement.accepted_digest)
        if self._opened and (self._plan is None or not self._plan.cards):
            self._jobs.spawn(self.replan(), "look for cards")
        elif self._plan_faults():
            self._jobs.spawn(self._ensure_plan(), "renew the placement plan")
        if self._units[GATEWAY_SOCKET_UNIT].active_state == "failed":
            self._jobs.spawn(
                self.systemd.start(GATEWAY_SOCKET_UNIT, timeout_seconds=30), "open the HTTP port"
            )
