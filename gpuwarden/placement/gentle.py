# SPDX-License-Identifier: Apache-2.0
"""What a new plan may do to workers that run by a former one: nothing. Pure.

systemd applies limits, devices and a slice's cpuset to what runs as soon as it reads new files, and
Linux before 6.2 then takes away the affinity of every process in that slice. So a slice with
processes in it keeps its cpuset, and a new plan gets another slice; a worker's new drop-in allows
what the running one has as well, until it is restarted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from string import ascii_lowercase

from gpuwarden import names
from gpuwarden.control.states import PlanData, PlannedWorker
from gpuwarden.placement.dropins import DROP_IN_NAME, by_slice, slice_text

_LARGER_COUNTS = ("MemoryMax", "TasksMax")
# What the kernel would take from a running worker, or from the server that it has started.
_ALLOWANCES = ("DeviceAllow=", "IPAddressAllow=")
_CPUSET = ("AllowedCPUs=", "AllowedMemoryNodes=")


@dataclass(frozen=True, slots=True)
class Alive:
    """What runs now.

    :ivar workers: when each running worker was started, by CLOCK_MONOTONIC in microseconds.
    :ivar slices: slices of ours with processes in them.
    """

    workers: Mapping[int, int] = field(default_factory=dict)
    slices: frozenset[str] = frozenset()


def choose_slices(plan: PlanData, installed: Mapping[str, str], alive: Alive) -> PlanData:
    """The plan with a slice for each card that nobody inside will notice.

    The one whose cpuset is already as planned; else the first that nothing runs in.

    :param installed: the texts of our slices that are there now.
    """
    chosen: dict[int, str] = {}
    for workers in by_slice(plan.workers).values():
        index = workers[0].gpu_index
        wanted = _cpuset(slice_text(workers))
        candidates = [names.gpu_slice(index, variant) for variant in ("", *ascii_lowercase[1:])]
        same = (name for name in candidates if _cpuset(installed.get(name, "")) == wanted)
        free = (name for name in candidates if name not in alive.slices)
        chosen[index] = next(same, None) or next(free, candidates[0])
    workers = [
        worker.model_copy(update={"slice": chosen[worker.gpu_index]}) for worker in plan.workers
    ]
    return plan.model_copy(update={"workers": workers})


def dated(plan: PlanData, former: PlanData | None, now_monotonic_microseconds: int) -> PlanData:
    """The plan with the time of each worker's revision: the former's where it is the same.

    :param former: the plan of this boot so far; None where this is the first.
    """
    known = {worker.number: worker for worker in former.workers} if former else {}

    def date(worker: PlannedWorker) -> int:
        before = known.get(worker.number)
        if before is not None and before.revision == worker.revision:
            return before.revised_monotonic_microseconds
        return now_monotonic_microseconds if former else 0

    workers = [
        worker.model_copy(update={"revised_monotonic_microseconds": date(worker)})
        for worker in plan.workers
    ]
    return plan.model_copy(update={"workers": workers})


def spared(
    files: Mapping[PurePosixPath, str],
    installed: Mapping[PurePosixPath, str],
    former: PlanData | None,
    plan: PlanData,
    alive: Alive,
) -> dict[PurePosixPath, str]:
    """``files`` so that what runs keeps what it has; if it is planned no more, its whole file."""
    outdated = alive.workers.keys() - _current(former, plan, alive)
    paths = [PurePosixPath(f"{names.worker_unit(number)}.d", DROP_IN_NAME) for number in outdated]
    paths += [PurePosixPath(name) for name in alive.slices]
    done = dict(files)
    for path in paths:
        if path in installed:
            new = files.get(path)
            done[path] = installed[path] if new is None else eased(new, installed[path])
    return done


def eased(new: str, running: str) -> str:
    """``new``, with the larger limits of both, and the devices and addresses of both."""
    before = running.splitlines()
    lines = [_larger(line, before) for line in new.splitlines()]
    for allowance in _ALLOWANCES:
        allowed = [line for line in lines if line.startswith(allowance)]
        more = [old for old in before if old.startswith(allowance) and old not in allowed]
        place = lines.index(allowed[-1]) + 1 if allowed else len(lines)
        lines[place:place] = more
    return "\n".join(lines) + "\n"


def _larger(line: str, before: Iterable[str]) -> str:
    """The line, or the one in its place ``before`` that allows more."""
    name, _, value = line.partition("=")
    if name not in _LARGER_COUNTS:
        return line
    others = [int(old.partition("=")[2]) for old in before if old.startswith(f"{name}=")]
    return f"{name}={max([int(value), *others])}"


def _current(former: PlanData | None, plan: PlanData, alive: Alive) -> set[int]:
    """The running workers that were started by the very revision that is planned now."""
    before = {worker.number: worker for worker in former.workers} if former else {}
    return {
        worker.number
        for worker in plan.workers
        if (known := before.get(worker.number)) is not None
        and known.revision == worker.revision
        and alive.workers.get(worker.number, 0) > known.revised_monotonic_microseconds
    }


def _cpuset(text: str) -> list[str] | None:
    """The lines that decide on the cpuset; None for no slice at all."""
    lines = sorted(text.splitlines())
    return [line for line in lines if line.startswith(_CPUSET)] if text else None
