# SPDX-License-Identifier: Apache-2.0
"""Processes as /proc shows them: who they are, where they may run, where their memory lies."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.doctor.places import Absence, Text, cpus_of, folders, status_field, text_of

OTHER, FIFO, ROUND_ROBIN = 0, 1, 2  # SCHED_* of the kernel's sched.h
_POLICY_FIELD = 38  # of /proc/PID/stat after the name in brackets: policy is the 41st, proc(5)
_PRIORITY_FIELD = 37  # rt_priority, the 40th
_NICE_FIELD = 16  # the 19th
_NODE_PAGES = re.compile(r"^N(\d{1,6})=(\d{1,18})$")
_PAGE_KIBIBYTES = re.compile(r"^kernelpagesize_kB=(\d{1,9})$")


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread: its name, where it may run and how it is scheduled."""

    name: str
    cpus: frozenset[int] | Absence
    policy: int
    priority: int
    nice: int


@dataclass(frozen=True, slots=True)
class Pages:
    """Where a process's own memory lies, in bytes a node, and by which policy most of it does."""

    node_bytes: Mapping[int, int]
    policy: str

    def share_on(self, node: int) -> float:
        """The part of it on ``node``, 1 where there is none at all."""
        total = sum(self.node_bytes.values())
        return self.node_bytes.get(node, 0) / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process and its threads."""

    pid: int
    threads: tuple[Thread, ...]
    memory_nodes: frozenset[int] | Absence
    pages: Pages | Absence


def members(control_group: str, root: Path) -> tuple[int, ...]:
    """The processes in a unit's control group and below."""
    if not control_group:
        return ()
    group = root / "sys/fs/cgroup" / control_group.lstrip("/")
    found: set[int] = set()
    for file in (group / "cgroup.procs", *group.glob("**/cgroup.procs")):
        text = text_of(file)
        if not isinstance(text, Absence):
            found |= {int(word) for word in text.split() if word.isdigit()}
    return tuple(sorted(found))


def read_process(pid: int, root: Path) -> Process:
    """A process as it is now; one that has ended has no threads."""
    folder = root / "proc" / str(pid)
    status = text_of(folder / "status")
    nodes: Text = (
        status
        if isinstance(status, Absence)
        else status_field(status, "Mems_allowed_list") or Absence.MISSING
    )
    maps = text_of(folder / "numa_maps")
    return Process(
        pid=pid,
        threads=read_threads(pid, root),
        memory_nodes=cpus_of(nodes),
        pages=maps if isinstance(maps, Absence) else own_pages(maps),
    )


def read_threads(pid: int, root: Path) -> tuple[Thread, ...]:
    """A process's threads as they are now; none where it has ended."""
    return tuple(_threads(root / "proc" / str(pid)))


def own_pages(numa_maps: str) -> Pages:
    """The process's own memory: a file's pages lie where whoever read it first was."""
    sizes: Counter[int] = Counter()
    policies: Counter[str] = Counter()
    for line in numa_maps.splitlines():
        words = line.split()
        if len(words) < 2 or any(word.startswith("file=") for word in words):
            continue
        page_bytes = 1024 * next(
            (int(match[1]) for word in words if (match := _PAGE_KIBIBYTES.match(word))), 4
        )
        here = {
            int(match[1]): int(match[2]) * page_bytes
            for word in words
            if (match := _NODE_PAGES.match(word))
        }
        sizes.update(here)
        policies[words[1]] += sum(here.values())
    most = policies.most_common(1)
    return Pages(dict(sizes), most[0][0] if most else "")


def _threads(folder: Path) -> Iterator[Thread]:
    for task in folders(folder / "task"):
        status, stat = text_of(task / "status"), text_of(task / "stat")
        if isinstance(status, Absence) or isinstance(stat, Absence):
            continue  # it has ended meanwhile
        # The name may hold anything, brackets too: what counts begins after the last one.
        fields = stat.rpartition(")")[2].split()
        numbers = [int(word) if word.lstrip("-").isdigit() else 0 for word in fields]
        numbers += [0] * (_POLICY_FIELD + 1 - len(numbers))
        allowed = status_field(status, "Cpus_allowed_list")
        yield Thread(
            name=status_field(status, "Name"),
            cpus=cpus_of(allowed) if allowed else Absence.MISSING,
            policy=numbers[_POLICY_FIELD],
            priority=numbers[_PRIORITY_FIELD],
            nice=numbers[_NICE_FIELD],
        )
