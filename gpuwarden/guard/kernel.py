# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of a worker: its processes, CPUs, memory, its GPU thread's priority."""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.names import SERVICE_SLICE, WORKERS_SLICE

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")
GPU_THREAD = "gpu"  # what gpuwarden.worker.gpu calls it
POLICIES = {1: "fifo", 2: "rr", 3: "batch", 5: "idle", 6: "deadline"}  # sched(7); 0 is normal
# Fields of /proc/PID/stat, proc(5).
_STATE, _PARENT, _NICE, _START_TIME, _REALTIME_PRIORITY, _POLICY = 3, 4, 19, 22, 40, 41
_DEAD = frozenset({"Z", "X"})  # they hold nothing any more but their number


@dataclass(frozen=True, slots=True)
class Process:
    """A process; number and start time together are nobody else's in this boot."""

    pid: int
    parent: int
    start_time_ticks: int


def processes(
    control_group: str, root: Path = CGROUP_ROOT, proc: Path = PROC
) -> tuple[Process, ...]:
    """The living processes of a unit's control group and below; none where the group is gone."""
    found = (_process(pid, proc) for pid in _members(control_group, root))
    return tuple(process for process in found if process is not None)


def generations(processes: Iterable[Process]) -> int:
    """How many generations they are: 1 for a process without a child among them, 0 for none."""
    parents = {process.pid: process.parent for process in processes}

    def generation(pid: int) -> int:
        seen = set[int]()
        while pid in parents and pid not in seen:  # read one by one: a number may come twice
            seen.add(pid)
            pid = parents[pid]
        return len(seen)

    return max((generation(pid) for pid in parents), default=0)


def survivors(processes: Iterable[Process], proc: Path = PROC) -> tuple[Process, ...]:
    """Those of them that still live, wherever they are now; another of the same number is none."""
    now = ((process, _process(process.pid, proc)) for process in processes)
    return tuple(
        process
        for process, found in now
        if found is not None and found.start_time_ticks == process.start_time_ticks
    )


def process_count(control_group: str, root: Path = CGROUP_ROOT) -> int:
    """Processes in a unit's control group and below; 0 where the group is gone."""
    return len(_members(control_group, root))


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory of a control group; None is unknown.

    :ivar held_bytes: what the kernel can't take back: all but the pages of files, which a model's
        weights fill up to the limit without any harm.
    :ivar high_bytes: MemoryHigh= of the unit; None where there is none.
    :ivar max_bytes: MemoryMax=, likewise.
    """

    held_bytes: int | None = None
    high_bytes: int | None = None
    max_bytes: int | None = None


def memory(control_group: str, root: Path = CGROUP_ROOT) -> Memory:
    """The main memory of a unit's control group."""
    if not control_group:
        return Memory()
    folder = root / control_group.lstrip("/")
    counted = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat"))
    used = _bytes(folder / "memory.current")
    files = [counted.get(name, "") for name in ("active_file", "inactive_file")]
    held = None
    if used is not None and all(each.isdigit() for each in files):
        held = max(0, used - sum(map(int, files)))
    return Memory(held, _bytes(folder / "memory.high"), _bytes(folder / "memory.max"))


def _bytes(file: Path) -> int | None:
    """The number in a file of a control group; None for ``max``, and where there is none."""
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def running_workers(root: Path = CGROUP_ROOT) -> set[int]:
    """The numbers of all workers that have a process, planned or not."""
    groups = (root / SERVICE_SLICE / WORKERS_SLICE).glob("*/medgemma-worker@*.service/cgroup.procs")
    names = (file.parent.name for file in groups if _lines(file))
    found = (name.removesuffix(".service").partition("@")[2] for name in names)
    return {int(number) for number in found if number.isdigit()}


def allowed_cpus(pid: int, root: Path = PROC) -> str:
    """The kernel's list of CPUs that a process may run on; empty where it is gone."""
    if not pid:
        return ""
    for line in _lines(root / str(pid) / "status"):
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            return value.strip()
    return ""


def inference_priority(pid: int, root: Path = PROC) -> str:
    """Priority of a worker's GPU thread: ``normal``, ``fifo:10``, ``nice:-10``; empty: none."""
    if not pid:
        return ""
    for number in _threads(root / str(pid) / "task"):
        folder = root / str(pid) / "task" / number
        if _lines(folder / "comm") == [GPU_THREAD]:
            return _priority(_lines(folder / "stat"))
    return ""


def _members(control_group: str, root: Path) -> list[int]:
    if not control_group:
        return []
    folder = root / control_group.lstrip("/")
    files = (folder / "cgroup.procs", *folder.glob("*/cgroup.procs"))
    # 0 stands for a process of another PID namespace.
    return [int(line) for file in files for line in _lines(file) if line.isdigit()]


def _process(pid: int, proc: Path) -> Process | None:
    lines = _lines(proc / str(pid) / "stat")
    if not lines:
        return None
    fields = _stat_fields(lines)
    if fields[_STATE - 3] in _DEAD:
        return None
    return Process(pid, int(fields[_PARENT - 3]), int(fields[_START_TIME - 3]))


def _stat_fields(stat: list[str]) -> list[str]:
    """The fields from the third on: the second, the name, may hold spaces, brackets and lines."""
    return "\n".join(stat).rpartition(")")[2].split()


def _threads(folder: Path) -> list[str]:
    """Thread numbers, oldest first: the GPU thread is one of the first, so few are looked at."""
    try:
        return sorted((entry.name for entry in folder.iterdir()), key=int)
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return []


def _priority(stat: list[str]) -> str:
    if not stat:
        return ""
    fields = _stat_fields(stat)
    nice, priority, policy = (int(fields[n - 3]) for n in (_NICE, _REALTIME_PRIORITY, _POLICY))
    if policy in POLICIES:
        return f"{POLICIES[policy]}:{priority}" if priority else POLICIES[policy]
    return f"nice:{nice}" if nice else "normal"


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno == errno.ENODEV:  # a control group that went between opening and reading
            return []
        raise
