# SPDX-License-Identifier: Apache-2.0
"""What /proc says of a process. Of its environment only our own tag is taken, nothing is kept.

A process that hangs in the driver may hold the lock of its own memory, and whoever reads its
environment or its maps then hangs as well: those of a process in an uninterruptible sleep are not
read.
"""

from pathlib import Path

from gpuwarden.scan.classify import worker_of
from gpuwarden.scan.evidence import UNINTERRUPTIBLE, ZOMBIE, Evidence
from gpuwarden.scan.proc import PROC, letter_of, link_of, names_in, text_of

# systemd keeps this link for as long as the unit is neither inactive nor failed (unit.c,
# unit_export_state_files and unit_notify); the journal goes by it.
RUNNING_UNITS = Path("/run/systemd/units")
INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # the kernel's PROC_PID_INIT_INO
TAG_VARIABLE = "GPUWARDEN_WORKER"  # medgemma-worker@.service sets it
ENVIRONMENT_LIMIT_BYTES = 256 * 1024
CAP_SYS_PTRACE = 19  # linux/capability.h; for another's environment, descriptors and namespaces
_START_TIME = 22  # fields of /proc/PID/stat, proc(5)


class ProcessReader:
    """Reads processes; remembers who slept uninterruptibly when last looked at."""

    def __init__(
        self,
        proc: Path = PROC,
        running_units: Path = RUNNING_UNITS,
        host_namespace: str = INITIAL_PID_NAMESPACE,
    ) -> None:
        self._host_namespace = host_namespace
        self._proc = proc
        self._running_units = running_units
        self._namespace = link_of(proc / "self/ns/pid")
        self._may_look = _has_capability(proc / "self/status", CAP_SYS_PTRACE)
        self._slept: frozenset[tuple[int, int]] = frozenset()
        self._sleeps: set[tuple[int, int]] = set()

    def shortcoming(self) -> str:
        """Why processes may be missed or mistaken from here; empty where none is."""
        if self._namespace != self._host_namespace:
            # The driver drops, without a word, whoever has no PID here.
            return "it runs in a PID namespace of its own: who is outside doesn't show"
        if not self._may_look:
            return "it may not look into other processes: it lacks CAP_SYS_PTRACE"
        return ""

    def begin(self) -> None:
        """A new look at everybody begins."""
        self._slept, self._sleeps = frozenset(self._sleeps), set()

    def read(self, pid: int) -> Evidence:
        """The process as it is now; one that ends meanwhile, or whose PID is reused, is gone."""
        folder = self._proc / str(pid)
        start, command = _start_and_command(folder)
        if not start:
            return Evidence(pid)
        state = _state(folder)
        control_group = _control_group(folder)
        sleeps = state == UNINTERRUPTIBLE
        tag = None if sleeps or state == ZOMBIE else _tag(folder)
        namespace = link_of(folder / "ns/pid")
        found = Evidence(
            pid=pid,
            start_time_ticks=start,
            state=state,
            command=command,
            uid=_uid(folder),
            control_group=control_group,
            foreign_namespace=bool(namespace) and namespace != self._namespace,
            tag=tag,
            unit_runs=self._runs(control_group),
            stuck=sleeps and (pid, start) in self._slept,
        )
        if sleeps:
            self._sleeps.add((pid, start))
        return found if _start_and_command(folder)[0] == start else Evidence(pid)

    def pids(self) -> list[int]:
        """Everybody who is there."""
        return [int(name) for name in names_in(self._proc) if name.isdigit()]

    def _runs(self, control_group: str) -> bool:
        number = worker_of(control_group)
        if number is None:
            return False
        return bool(link_of(self._running_units / f"invocation:medgemma-worker@{number}.service"))


def _has_capability(status: Path, number: int) -> bool:
    for line in text_of(status).splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _start_and_command(folder: Path) -> tuple[int, str]:
    """Both from one line: the name stands in brackets, and may hold some itself."""
    head, bracket, rest = text_of(folder / "stat").rpartition(")")
    if not bracket:
        return 0, ""
    return int(rest.split()[_START_TIME - 3]), head.partition("(")[2]


def _state(folder: Path) -> str:
    """One letter for all threads: those of a process whose first has ended go on without it."""
    tasks = names_in(folder / "task")
    letters = {letter_of(text_of(folder / "task" / task / "stat")) for task in tasks}
    if UNINTERRUPTIBLE in letters:
        return UNINTERRUPTIBLE
    alive = sorted(letters - {ZOMBIE, "X", ""})
    return alive[-1] if alive else ZOMBIE


def _control_group(folder: Path) -> str:
    """The path in the unified hierarchy, or in systemd's own where there is none."""
    named = ""
    for line in text_of(folder / "cgroup").splitlines():
        if line.startswith("0::"):
            return line[3:].removesuffix(" (deleted)")
        if ":name=systemd:" in line:
            named = line.split(":", 2)[2].removesuffix(" (deleted)")
    return named


def _uid(folder: Path) -> int:
    """The real user: the folder's owner is root where a process is undumpable."""
    for line in text_of(folder / "status").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    return -1


def _tag(folder: Path) -> int | None:
    try:
        with (folder / "environ").open("rb") as stream:
            variables = stream.read(ENVIRONMENT_LIMIT_BYTES).split(b"\0")
    except OSError:  # it ended, or is none of ours to look into
        return None
    start = f"{TAG_VARIABLE}=".encode()
    values = [each[len(start) :] for each in variables if each.startswith(start)]
    return int(values[0]) if values and values[0].isdigit() and len(values[0]) < 10 else None
