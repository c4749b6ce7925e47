# SPDX-License-Identifier: Apache-2.0
"""The workers' lives: notices each end, whoever wanted it, and keeps what is known of it.

systemd forgets how a process ended as soon as it starts the next one; an operator wants to know.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from gpuwarden.control.states import GuardData, PlannedWorker, WorkerStatus
from gpuwarden.guard.aftermath import look_after
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.kernel import Process
from gpuwarden.guard.lifecycle import UnitFacts, last_error
from gpuwarden.guard.remains import Life, Remains, figures
from gpuwarden.systemd.events import Event, tell
from gpuwarden.values import ServiceState

STOPPED = "stopped by systemd, by somebody's order"
UNSEEN = "ended, nobody saw how"
BY_GUARD = ""  # an end that whoever ordered it sees to


@dataclass(frozen=True, slots=True)
class Ending:
    """How a life ended.

    :ivar error: in words, where it was none that somebody wanted; else empty.
    """

    how: str
    error: str = ""


def ending_of(pid: int, told: UnitFacts, restarted: bool) -> Ending:
    """How the main process ``pid`` ended, by what systemd says of the unit.

    :param restarted: systemd has restarted it of its own, as it does after a failure.
    """
    if told.exec_pid == pid and told.exit_code:
        error = last_error(told)
        return Ending(error or STOPPED, error)
    return Ending(UNSEEN, UNSEEN) if restarted else Ending(STOPPED)


class Lives:
    """All workers' lives.

    :param former: what a former guard of this boot published: it knew the lives before.
    """

    def __init__(self, jobs: Jobs, former: GuardData | None) -> None:
        self._jobs = jobs
        self._lives: dict[int, Life] = {}
        self._restarts: dict[int, int] = {}
        self._heard: dict[int, UnitFacts] = {}
        self._expected: dict[int, str] = {}
        self.errors: dict[int, str] = {}
        self.exits: dict[int, str] = {}
        if former is not None and former.state is not ServiceState.STOPPING:
            for worker in former.workers:
                self._remember(worker)

    def life(self, number: int, gpu_index: int) -> Life:
        """A worker's life as last seen."""
        return self._lives.get(number, Life(number, gpu_index))

    def is_down(self, life: Life) -> bool:
        """Whether no next life is known to have begun.

        To be asked again and again: systemd tells of a life later than its first process is there.
        """
        return self.life(life.number, life.gpu_index).main_pid in (0, life.main_pid)

    def expect(self, number: int, why: str = BY_GUARD) -> None:
        """A worker is about to be ended.

        :param why: as in "stopped: ..."; without one, whoever ends it looks after what it leaves.
        """
        if self._lives.get(number, Life(number, 0)).main_pid:
            self._expected[number] = why

    def ended(self, number: int, how: str, remains: Remains) -> None:
        """Keep how a life ended that somebody had ordered to end."""
        self.errors.pop(number, None)
        self.exits[number] = f"{_now()}: {how}; {figures(remains)}"

    def hear(self, number: int, told: UnitFacts) -> None:
        """systemd has told of a unit's main process; later it may have forgotten."""
        if told.exit_code:
            self._heard[number] = told

    def look(
        self,
        planned: PlannedWorker,
        unit: UnitFacts,
        processes: tuple[Process, ...],
        held_bytes: int | None,
        used_bytes: int | None,
    ) -> None:
        """Take a look at one worker."""
        number = planned.number
        before = self.life(number, planned.gpu_index)
        if before.main_pid and before.main_pid != unit.main_pid:
            self._end(before, unit)
        if unit.main_pid:
            is_dying = all(each.pid != unit.main_pid for each in processes)
            self._lives[number] = Life(
                number,
                planned.gpu_index,
                unit.main_pid,
                unit.control_group,
                # Of a group without its main process, some may have gone with it already.
                before.processes if is_dying and before.main_pid == unit.main_pid else processes,
                # What is not known at this moment was known a moment ago.
                before.held_bytes if held_bytes is None else held_bytes,
                before.used_bytes if used_bytes is None else used_bytes,
            )
        else:
            self._lives[number] = replace(before, main_pid=0)
        self._restarts[number] = unit.restarts

    def _end(self, life: Life, unit: UnitFacts) -> None:
        number = life.number
        expected = self._expected.pop(number, None)
        if expected == BY_GUARD:
            return
        heard = self._heard.pop(number, unit)
        told = heard if heard.exec_pid == life.main_pid else unit
        restarted = unit.restarts > self._restarts.get(number, unit.restarts)
        ending = ending_of(life.main_pid, told, restarted)
        if expected is not None:
            ending = Ending(f"stopped: {expected}")
        self.exits[number] = f"{_now()}: {ending.how}"
        self._tell(life, ending)
        if life.processes:  # else nobody has looked at it while it lived
            work = self._look_after(life, ending)
            self._jobs.spawn(work, f"see what worker {number} (PID {life.main_pid}) has left")

    def _tell(self, life: Life, ending: Ending) -> None:
        if not ending.error:
            self.errors.pop(life.number, None)
            return
        self.errors[life.number] = ending.error
        tell(
            Event.WORKER_DIED,
            f"worker {life.number} (PID {life.main_pid}) has died: {ending.error}",
            logging.ERROR,
            WORKER=life.number,
            GPU=life.gpu_index,
            REASON=ending.error,
        )

    async def _look_after(self, life: Life, ending: Ending) -> None:
        remains = await look_after(life, self.is_down)
        self.exits[life.number] = f"{self.exits[life.number]}; {figures(remains)}"
        tell_remains(remains, f"worker {life.number} has ended ({ending.how})")

    def _remember(self, worker: WorkerStatus) -> None:
        number = worker.number
        self._lives[number] = Life(number, worker.gpu, worker.main_pid)
        self._restarts[number] = worker.restarts
        if worker.last_error:
            self.errors[number] = worker.last_error
        if worker.last_exit:
            self.exits[number] = worker.last_exit


def tell_remains(remains: Remains, what: str) -> None:
    """Say in the journal, with figures, what is left of a worker's life."""
    life = remains.life
    fields: dict[str, object] = {
        "WORKER": life.number,
        "GPU": life.gpu_index,
        "PROCESSES_ENDED": remains.ended,
        "PROCESSES_LEFT": len(remains.left),
    }
    if remains.freed_bytes is not None:
        fields["VRAM_FREED_BYTES"] = remains.freed_bytes
        fields["VRAM_MISSING_BYTES"] = remains.missing_bytes
    event = Event.WORKER_ENDED if remains.is_clean else Event.WORKER_LEFT_SOMETHING
    level = logging.INFO if remains.is_clean else logging.ERROR
    tell(event, f"{what}: {figures(remains)}", level, **fields)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
