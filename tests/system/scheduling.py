# SPDX-License-Identifier: Apache-2.0
"""How the kernel schedules the threads of a worker, and where its memory lies."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.node.vm import Node
from tests.system.service import main_pid

_POLICIES = {0: "normal", 1: "fifo", 2: "rr", 3: "batch", 5: "idle"}  # sched(7)
_FILES = ("comm", "stat", "schedstat")


@dataclass(frozen=True)
class Thread:
    """One thread of a worker, its children's included, by /proc's word.

    ``main`` tells the worker's own process from its children.
    """

    process: int
    main: bool
    number: int
    name: str
    priority: str
    nice: int
    running_nanoseconds: int
    waiting_nanoseconds: int


@dataclass(frozen=True)
class Spent:
    """What threads have done: time on a CPU, and time in the queue for one."""

    running_nanoseconds: int
    waiting_nanoseconds: int

    @classmethod
    def of(cls, threads: Iterable[Thread]) -> "Spent":
        listed = list(threads)
        return cls(
            sum(thread.running_nanoseconds for thread in listed),
            sum(thread.waiting_nanoseconds for thread in listed),
        )

    def since(self, before: "Spent") -> "Spent":
        return Spent(
            self.running_nanoseconds - before.running_nanoseconds,
            self.waiting_nanoseconds - before.waiting_nanoseconds,
        )

    @property
    def waiting_share(self) -> float:
        """Waiting in relation to running: under emulation the only figure that says anything."""
        return self.waiting_nanoseconds / self.running_nanoseconds


def processes_of(node: Node, unit: str) -> list[int]:
    """Every process in the unit's control group."""
    group = node.run(f"systemctl show -P ControlGroup {unit}").text
    return [int(pid) for pid in node.run(f"cat /sys/fs/cgroup{group}/cgroup.procs").text.split()]


def threads_of(node: Node, unit: str) -> list[Thread]:
    """Every thread in the unit's control group."""
    main = main_pid(node, unit)
    files = " ".join(
        f"/proc/{pid}/task/*/{name}" for pid in processes_of(node, unit) for name in _FILES
    )
    told: dict[tuple[int, int], dict[str, str]] = {}
    for line in node.run(f"grep -sH '' {files} || true").text.splitlines():
        path, _, text = line.partition(":")
        _, _, process, _, number, name = path.split("/")
        told.setdefault((int(process), int(number)), {})[name] = text
    # One that ended while it was read has told less.
    whole = {key: texts for key, texts in told.items() if len(texts) == len(_FILES)}
    return [_thread(key, texts, main) for key, texts in whole.items()]


def _thread(key: tuple[int, int], texts: dict[str, str], main: int) -> Thread:
    process, number = key
    # proc(5): from the third field on, which follows the name in brackets.
    fields = [int(field) for field in texts["stat"].rpartition(")")[2].split()[1:]]
    nice, realtime, policy = fields[19 - 4], fields[40 - 4], fields[41 - 4]
    running, waiting, _ = (int(figure) for figure in texts["schedstat"].split())
    priority = f"{_POLICIES[policy]}:{realtime}" if realtime else _POLICIES[policy]
    return Thread(process, process == main, number, texts["comm"], priority, nice, running, waiting)


def anonymous_bytes_by_node(node: Node, pid: int) -> dict[int, int]:
    """Where a process's anonymous memory lies, by NUMA node."""
    sizes: dict[int, int] = {}
    for line in node.run(f"grep -v file= /proc/{pid}/numa_maps | grep anon=").text.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        page_bytes = int(words["kernelpagesize_kB"]) * 1024
        for word, pages in words.items():
            if word[0] == "N" and word[1:].isdigit():
                sizes[int(word[1:])] = sizes.get(int(word[1:]), 0) + int(pages) * page_bytes
    return sizes
