# SPDX-License-Identifier: Apache-2.0
"""Looks after the workers' health: reads what is known, has it judged, asks, restarts."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from gpuwarden import names
from gpuwarden.config import accepted_configuration
from gpuwarden.config.health import HealthSettings
from gpuwarden.control.requests import CanaryAnswer, CanaryRequest
from gpuwarden.control.socket import ControlError, ask_async
from gpuwarden.control.states import (
    GatewayData,
    GatewayWorker,
    GuardData,
    PlannedWorker,
    WorkerStatus,
)
from gpuwarden.guard import kernel
from gpuwarden.guard.findings import Ailment, Footprint
from gpuwarden.guard.health import (
    ASK_AGAIN_SECONDS,
    Vitals,
    Watch,
    after_canary,
    ailment,
    needs_memory,
    next_watch,
    recycle_reason,
    restart_reason,
    wants_canary,
)
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.guard.presence import presence_in
from gpuwarden.guard.recycling import Pause, after_restart, is_idle_moment, may_restart
from gpuwarden.guard.scans import Scans
from gpuwarden.guard.status import SERVING
from gpuwarden.guard.telling_care import (
    tell_ailment,
    tell_card_lost,
    tell_needs_memory,
    tell_not_listed,
    tell_recycled,
)

log = logging.getLogger(__name__)

CANARY_SECONDS = 8.0  # the front door gives the worker 5 (gateway/probe.py)


class AcceptedHealth:
    """What is configured now; read again when the guard has accepted something else."""

    def __init__(self) -> None:
        self._stamp = -1
        self._settings = HealthSettings()

    def __call__(self) -> HealthSettings:
        """The settings."""
        try:
            stamp = names.ACCEPTED_CONFIGURATION_FILE.stat().st_mtime_ns
        except OSError:
            return self._settings  # nothing was accepted yet
        if stamp != self._stamp:
            configuration = accepted_configuration(names.ACCEPTED_CONFIGURATION_FILE)
            self._stamp = stamp
            self._settings = configuration.health if configuration else HealthSettings()
        return self._settings


@dataclass
class Checkup:
    """What is remembered of the workers' health, and what is done for it.

    :ivar recycle: restarts a worker in an orderly way, for a reason; False: it is being done
        something with already.
    """

    jobs: Jobs
    recycle: Callable[[int, str], bool]
    settings: Callable[[], HealthSettings] = field(default_factory=AcceptedHealth)
    _watches: dict[int, Watch] = field(default_factory=dict)
    _pauses: dict[int, Pause] = field(default_factory=dict)
    _refused_seconds: dict[int, float] = field(default_factory=dict)
    _told: dict[int, str] = field(default_factory=dict)
    _answers: dict[int, tuple[tuple[int, int], str]] = field(default_factory=dict)
    _accepted: int = -1
    _quiet_since_seconds: float = field(default_factory=time.monotonic)

    # --- each look

    def look(
        self,
        planned: Sequence[PlannedWorker],
        units: Mapping[int, UnitFacts],
        gateway: GatewayData | None,
        scans: Scans,
        now_seconds: float,
    ) -> tuple[dict[int, Ailment], dict[int, Footprint]]:
        """Take a look at every worker: what ails which, and what memory each holds.

        See :func:`gpuwarden.guard.health.next_watch`.
        """
        settings = self.settings()
        self._look_whether_quiet(gateway, now_seconds)
        watches: dict[int, Watch] = {}
        ailing: dict[int, Ailment] = {}
        memory: dict[int, Footprint] = {}
        for worker in planned:
            seen = vitals(worker, units.get(worker.number, UnitFacts()), gateway, scans, settings)
            before = self._watches.get(worker.number)
            watch = watches[worker.number] = next_watch(before, seen, now_seconds, settings)
            memory[worker.number] = Footprint(seen.memory_bytes, seen.memory_soft_limit_bytes)
            ill = ailment(watch)
            if ill is not None:
                ailing[worker.number] = ill
        self._watches = watches
        return ailing, memory

    def _look_whether_quiet(self, gateway: GatewayData | None, now_seconds: float) -> None:
        busy = gateway is None or gateway.queue_depth or any(w.outstanding for w in gateway.workers)
        accepted = gateway.accepted if gateway else -1
        if busy or accepted != self._accepted:
            self._quiet_since_seconds = now_seconds
        self._accepted = accepted

    # --- each turn

    def act(self, data: GuardData, now_seconds: float) -> None:
        """Ask the canary of suspects, restart who is unwell, recycle at most one who is idle."""
        settings = self.settings()
        for worker in data.workers:
            watch = self._watches.get(worker.number)
            if watch is None:
                continue
            self._tell(worker, watch, now_seconds)
            if wants_canary(watch, now_seconds):
                self.jobs.spawn(self._ask(worker), f"ask worker {worker.number} for its card")
            elif reason := restart_reason(watch, now_seconds, settings):
                self._restart(worker, reason, now_seconds)
        self._recycle_one(data, now_seconds, settings)

    def _recycle_one(self, data: GuardData, now_seconds: float, settings: HealthSettings) -> None:
        quiet_seconds = now_seconds - self._quiet_since_seconds
        for worker in data.workers:
            watch = self._watches.get(worker.number)
            reason = recycle_reason(watch, now_seconds, settings) if watch else ""
            idle = is_idle_moment(worker.number, data.workers, data.gateway, quiet_seconds)
            if reason and idle and self._restart(worker, reason, now_seconds):
                tell_recycled(worker, reason)
                return

    def _restart(self, worker: WorkerStatus, reason: str, now_seconds: float) -> bool:
        number, pause = worker.number, self._pauses.get(worker.number, Pause())
        refused = self._refused_seconds.get(number)
        waits = refused is not None and now_seconds - refused < ASK_AGAIN_SECONDS
        if worker.operation or waits or not may_restart(pause, now_seconds):
            return False
        if not self.recycle(number, reason):
            self._refused_seconds[number] = now_seconds
            return False
        self._pauses[number] = after_restart(pause, now_seconds)
        return True

    def _tell(self, worker: WorkerStatus, watch: Watch, now_seconds: float) -> None:
        """What is new of it, once."""
        ill, needed = ailment(watch), needs_memory(watch, now_seconds)
        news = ill.reason if ill else watch.refused or needed
        if news and not self._told.get(worker.number):
            if ill is not None:
                tell_ailment(worker, ill)
            elif watch.refused:
                tell_card_lost(worker, watch.refused)
            else:
                tell_needs_memory(worker, needed)
        self._told[worker.number] = news

    async def _ask(self, worker: WorkerStatus) -> None:
        """Have it ask its card; whoever doesn't answer says nothing about the card."""
        pid, outcome, detail = worker.main_pid, "unknown", ""
        request = CanaryRequest(number=worker.number)
        try:
            document = await ask_async(
                names.GATEWAY_CONTROL_SOCKET, request.model_dump(), CANARY_SECONDS
            )
            answer = CanaryAnswer.model_validate(document)
            pid, outcome, detail = answer.pid, answer.outcome, answer.detail
        except (ControlError, ValidationError) as error:
            detail = str(error).splitlines()[0]
        watch = self._watches.get(worker.number)
        if watch is None:
            return
        self._watches[worker.number] = after_canary(watch, pid, outcome, detail, time.monotonic())
        news = (watch.life, outcome)
        if outcome != "lost" and self._answers.get(worker.number) != news:
            tell_not_listed(worker, outcome, detail)
        self._answers[worker.number] = news


def vitals(
    worker: PlannedWorker,
    unit: UnitFacts,
    gateway: GatewayData | None,
    scans: Scans,
    settings: HealthSettings,
) -> Vitals:
    """What is seen of a worker now."""
    known = gateway.workers if gateway else []
    told = next((each for each in known if each.number == worker.number), None)
    serves = (
        unit.active_state == "active"
        and not unit.has_job
        and told is not None
        and told.pid == unit.main_pid
        and told.state in SERVING
    )
    life = (unit.main_pid, unit.started_monotonic_microseconds)
    memory = kernel.memory(unit.control_group)
    limit = soft_limit_bytes(memory, settings)
    if told is None or not serves:
        return Vitals(life, False, memory_bytes=memory.held_bytes, memory_soft_limit_bytes=limit)
    scan = scans.known.get(worker.gpu_index)
    reserved, allocated = told.vram_reserved_bytes, told.vram_allocated_bytes
    return Vitals(
        life=life,
        serves=True,
        is_stalled=told.stalled,
        silent_seconds=told.silent_seconds,
        presence=presence_in(scan.data, scan.identity, worker.number, unit.control_group)
        if scan
        else None,
        requests=told.requests,
        failures=told.failures,
        memory_bytes=memory.held_bytes,
        memory_soft_limit_bytes=limit,
        vram_reserved_bytes=reserved,
        vram_fragmentation=1 - allocated / reserved if reserved and allocated is not None else None,
        short_of_vram=short_of_vram(told),
    )


def short_of_vram(told: GatewayWorker) -> str:
    """Why the front door's remedies for want of card memory have come to a restart; else empty."""
    memory, reserved = told.vram, told.vram_reserved_bytes
    if memory is None or memory.remedy != "recycle":
        return ""
    if reserved is None or not memory.limit_bytes:
        return "it ran out of it, and smaller batches did not help"
    return (
        f"it holds {reserved / memory.limit_bytes:.0%} of its share of the card, and neither "
        "dropped caches nor smaller batches helped"
    )


def soft_limit_bytes(memory: kernel.Memory, settings: HealthSettings) -> int | None:
    """MemoryHigh= of the unit where it is set, else the configured share of MemoryMax=."""
    if memory.high_bytes is not None:
        return memory.high_bytes
    if memory.max_bytes is None or settings.memory_soft_limit >= 1:
        return None
    return int(memory.max_bytes * settings.memory_soft_limit)
