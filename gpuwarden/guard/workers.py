# SPDX-License-Identifier: Apache-2.0
"""Starts the wanted workers, tries failed ones again, stops those whose card is too hot."""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from gpuwarden.bus.errors import BusError
from gpuwarden.control.states import GuardData, Held, WorkerStatus
from gpuwarden.guard.breaker import TAKING_DOWN
from gpuwarden.guard.heat import DOWN, occupants
from gpuwarden.guard.holds import Holds
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.lifecycle import Intent, UnitFacts, next_intent, should_start
from gpuwarden.guard.lives import Lives
from gpuwarden.guard.status import SERVING
from gpuwarden.guard.telling import (
    tell_card_in_service,
    tell_card_out_of_service,
    tell_started_after_heat,
    tell_stopped_for_heat,
)
from gpuwarden.names import worker_unit
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import JobError, Systemd
from gpuwarden.values import ServiceState, WorkerState

log = logging.getLogger(__name__)

JOB_TIMEOUT_SECONDS = 900.0  # longer than any worker may take to load, or to drain
BUS_RETRY_SECONDS = 5.0  # a bus or a systemd that did not answer, or could not stop a worker


async def _no_check() -> None:
    """Where nobody plans."""


async def _nothing_to_clean(gpu_index: int, number: int) -> int:
    """Where nobody reaps."""
    return 0


@dataclass
class Workers:
    """What the guard wants of each worker, and what it does about it.

    :ivar ensure_plan: returns when a plan holds; JobError: there is none to start a worker by.
    :ivar clean: ends what a former life of a worker has left, by card and worker; bytes freed.
    :ivar job_errors: why systemd refused to start a worker at all.
    :ivar was_ready: workers that have served since this guard runs.
    """

    systemd: Systemd
    jobs: Jobs
    holds: Holds
    lives: Lives
    former: GuardData | None = None
    ensure_plan: Callable[[], Awaitable[None]] = field(default=_no_check)
    clean: Callable[[int, int], Awaitable[int]] = field(default=_nothing_to_clean)
    job_errors: dict[int, str] = field(default_factory=dict)
    was_ready: set[int] = field(default_factory=set)
    _intents: dict[int, Intent] = field(default_factory=dict)
    _stop_again_seconds: dict[int, float] = field(default_factory=dict)

    def intent(self, number: int) -> Intent:
        """What is wanted of a worker; at first, that it runs if no operator had stopped it."""
        return self._intents.setdefault(number, Intent(number not in self._stopped_before()))

    def want(self, number: int, wanted: bool) -> None:
        """Somebody has ordered it to be up, or to stay down; former failures are forgotten."""
        self._intents[number] = Intent(wanted)
        self.job_errors.pop(number, None)

    def keep_up(self, number: int) -> None:
        """It is up, or will be: start it if it is found down."""
        self._try_again_at([number], time.monotonic())

    def start_all(self, planned: Mapping[int, tuple[int, UnitFacts]]) -> None:
        """Start every worker that is down, wanted and not held back.

        :param planned: card and unit by worker.
        """
        for number, (gpu_index, unit) in planned.items():
            down = unit.active_state in ("inactive", "failed")
            if down and self.intent(number).wanted and not self.holds.held(gpu_index):
                self._spawn_start(number, gpu_index)

    def occupants(self, data: GuardData, gpu_index: int) -> list[int]:
        """The workers that have the card open, or are being started on it."""
        starting = [
            worker.number
            for worker in data.workers
            if worker.gpu == gpu_index and self.jobs.is_running(_start_of(worker.number))
        ]
        return sorted({*occupants(data.workers, gpu_index), *starting})

    def act(self, data: GuardData, now_seconds: float, under_way: Collection[int] = ()) -> None:
        """One look at all of them.

        :param under_way: workers with which something else is being done: they are only stopped,
            where their card must have it.
        """
        for gpu_index, old, new in self.holds.changes():
            self._take_hold(data, gpu_index, old, new, now_seconds)
        for worker in data.workers:
            if worker.state in SERVING:
                self.was_ready.add(worker.number)
                self.job_errors.pop(worker.number, None)
            if self.holds.held(worker.gpu) in TAKING_DOWN:
                self._keep_down(worker, now_seconds)
            elif worker.number not in under_way:
                card_failures = self._failures_on(data, worker.gpu)
                self._keep_up(worker, now_seconds, card_failures)

    def _take_hold(
        self, data: GuardData, gpu_index: int, old: Held, new: Held, now_seconds: float
    ) -> None:
        workers = [worker for worker in data.workers if worker.gpu == gpu_index]
        card = next((card for card in data.gpus if card.index == gpu_index), None)
        wanted = [each.number for each in workers if self.intent(each.number).wanted]
        up = [worker.number for worker in workers if worker.state not in DOWN]
        breaker = self.holds.breaker(gpu_index)
        if card is not None and new == "heat":
            tell_stopped_for_heat(card, up)
        elif card is not None and breaker.remedy:
            tell_card_out_of_service(card, up, breaker)
        elif card is not None and old == "heat":
            tell_started_after_heat(card, wanted)
        elif card is not None and old in TAKING_DOWN:
            tell_card_in_service(card, wanted)
        if not new:
            self._try_again_at(wanted, now_seconds)

    def _keep_down(self, worker: WorkerStatus, now_seconds: float) -> None:
        """Stop a worker whose card can't have it, whoever started it; it stays wanted."""
        number = worker.number
        # Not up by our own doing: no operator's stop, and no failure to be tried again.
        intent = replace(self.intent(number), was_up=False, failures=0, retry_at_seconds=None)
        self._intents[number] = intent
        if worker.state in DOWN or now_seconds < self._stop_again_seconds.get(number, 0.0):
            return
        self._stop_again_seconds[number] = now_seconds + BUS_RETRY_SECONDS
        self.lives.expect(number, worker.reason)
        stop = self.systemd.stop(worker_unit(number), JOB_TIMEOUT_SECONDS)
        self.jobs.spawn(stop, f"stop worker {number}, which its card can't have")

    def _failures_on(self, data: GuardData, gpu_index: int) -> int:
        """How often workers of a card have failed in a row: they wait the longer for it, all."""
        numbers = [worker.number for worker in data.workers if worker.gpu == gpu_index]
        return max((self.intent(number).failures for number in numbers), default=0)

    def _keep_up(self, worker: WorkerStatus, now_seconds: float, card_failures: int) -> None:
        """Try a failed worker again when its time has come."""
        before = self.intent(worker.number)
        if worker.state is WorkerState.FAILED and before.retry_at_seconds is None:
            before = replace(before, failures=card_failures)
        intent = self._intents[worker.number] = next_intent(before, worker.state, now_seconds)
        if intent.retry_at_seconds and intent != before:
            wait = intent.retry_at_seconds - now_seconds
            tell(
                Event.WORKER_RETRY,
                f"worker {worker.number} failed, next try in {wait:.0f} s: {worker.last_error}",
                logging.WARNING,
                WORKER=worker.number,
                REASON=worker.last_error,
            )
        held = self.holds.held(worker.gpu)
        if not held and should_start(intent, worker.state, now_seconds):
            self._intents[worker.number] = replace(intent, retry_at_seconds=None)
            self._spawn_start(worker.number, worker.gpu)

    async def start(self, number: int, gpu_index: int) -> None:
        """Start a worker by the plan, and return when it is ready.

        :raises JobError: it could not be started, or did not become ready.
        :raises BusError: systemd could not be asked; it is tried again.
        """
        try:
            await self.clean(gpu_index, number)
            await self.ensure_plan()
            await self.systemd.start(worker_unit(number), JOB_TIMEOUT_SECONDS)
        except JobError as error:
            if not error.is_replaced:
                self.job_errors[number] = str(error)
            raise
        except BusError:
            self._try_again_at([number], time.monotonic() + BUS_RETRY_SECONDS)
            raise

    def _spawn_start(self, number: int, gpu_index: int) -> None:
        async def start() -> None:
            try:
                await self.start(number, gpu_index)
            except JobError as error:
                if not error.is_replaced:
                    raise

        self.jobs.spawn(start(), _start_of(number))

    def _try_again_at(self, numbers: Iterable[int], at_seconds: float) -> None:
        for number in numbers:
            self._intents[number] = replace(self.intent(number), retry_at_seconds=at_seconds)

    def _stopped_before(self) -> set[int]:
        """Workers that were down by an operator's will when a former guard of this boot died."""
        if self.former is None or self.former.state is ServiceState.STOPPING:
            return set()
        return {worker.number for worker in self.former.workers if not worker.wanted}


def _start_of(number: int) -> str:
    return f"start worker {number}"
