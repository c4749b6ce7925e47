# SPDX-License-Identifier: Apache-2.0
"""The day as a campaign: on a node, or in short on this host; judged by what is held at its end.

Flat means: from the fifth hour on, when caches and allocators have what they need, the straight
line of least squares through all looks at a process rises by no more than ``GROWTH_KIB`` until
midnight, and it ends with as many descriptors and threads as it then had, but for those of a few
connections. That is for who lives all day: guard, gateway, worker 0. Worker 1 is recycled, so what
counts is that each life of it is as large as the one before.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gpuwarden.values import ThermalState
from tests.node.vm import Node
from tests.soak.day import program
from tests.soak.day.load import CALLERS, Load
from tests.soak.day.program import Look
from tests.soak.front_door import FrontDoor, KeptWorker, front_door
from tests.soak.line import slope
from tests.soak.random_kills.campaign import FOLDER, PROJECT, next_line
from tests.soak.thermal import LIBRARIES, Figures
from tests.system.service import configure

WARM_HOURS = 5.0
GROWTH_KIB = 4096
GROWTH_DESCRIPTORS = 2 * CALLERS  # a connection and a buffer of each
GROWTH_THREADS = 1
ALL_DAY = ("guard", "gateway", "worker 0")
RECYCLED = "worker 1"
CONFIG_PATH = "/etc/gpuwarden/conf.d/80-day.toml"
CONFIG = """\
[workers]
engine = "echo"
options = { delay_seconds = 0.1 }

[gateway]
request_timeout_seconds = 120
"""
MODULES = {"day": ("__init__", "in_node", "load", "program"), "random_kills": ("processes",)}


@dataclass
class Day(Figures):
    """What was seen."""

    looks: list[Look] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.table()])

    def table(self) -> list[str]:
        """The figures, a line each."""
        ends = ", ".join(f"{count} {what}" for what, count in sorted(self.ended.items()))
        names = sorted({look.name for look in self.looks})
        return [f"  requests: {ends}", *(self._line(name) for name in names)]

    def _line(self, name: str) -> str:
        looks = self.of(name)
        first, last = looks[0], looks[-1]
        mib = f"{first.anonymous_kib / 1024:.1f} -> {last.anonymous_kib / 1024:.1f} MiB"
        lives = len({look.pid for look in looks})
        rise = f", {rise_kib(looks):+.0f} KiB by its line" if lives == 1 else f", {lives} lives"
        return (
            f"  {name}: RssAnon {mib}{rise}; descriptors {first.descriptors} -> "
            f"{last.descriptors}, threads {first.threads} -> {last.threads}"
        )

    def of(self, name: str) -> list[Look]:
        """The looks at a process from when it was warm on."""
        looks = [look for look in self.looks if look.name == name]
        return [look for look in looks if look.hour >= WARM_HOURS] or looks

    def judge(self) -> None:
        """Name what must not be."""
        present = {look.name for look in self.looks}
        for name in [one for one in ALL_DAY if one in present]:
            looks = self.of(name)
            if len({look.pid for look in looks}) > 1:
                self.faults.append(f"{name} did not live all day")
            elif (rise := rise_kib(looks)) > GROWTH_KIB:
                self.faults.append(f"{name} grew by {rise:.0f} KiB")
        for name in sorted(present):
            first, last = self.of(name)[0], self.of(name)[-1]
            if last.descriptors > first.descriptors + GROWTH_DESCRIPTORS:
                self.faults.append(f"{name} has {last.descriptors} descriptors")
            if last.threads > first.threads + GROWTH_THREADS:
                self.faults.append(f"{name} has {last.threads} threads")
        recycled = self.of(RECYCLED)
        if recycled[-1].anonymous_kib > recycled[0].anonymous_kib + GROWTH_KIB:
            self.faults.append(f"{RECYCLED} is larger in its last life than in its first")
        if len({look.pid for look in self.looks if look.name == RECYCLED}) < 2:
            self.faults.append(f"{RECYCLED} was never recycled")
        for kind in ("predict", "stream", "hang_up", "job"):
            if not self.ended.get(kind):
                self.faults.append(f"nothing came of any {kind}")


def rise_kib(looks: list[Look]) -> float:
    """By how much the line of least squares rises from the first look to the last."""
    hours = [look.hour for look in looks]
    return slope(hours, [look.anonymous_kib for look in looks]) * (hours[-1] - hours[0])


def on_node(node: Node, seconds: float, seed: int) -> Day:
    """The whole node through a day."""
    figures = Day("a day of mixed load, on a node")
    prepare(node)
    day = node.start(
        f"{LIBRARIES}:{FOLDER} exec python3 -m tests.soak.day.in_node {seconds} {seed}"
    )
    while "ended" not in (told := next_line(day)):
        figures.looks.append(Look(**told))
        if told["name"] == "gateway":
            print(f"  {told['hour']:.1f} h: {told}", file=sys.stderr, flush=True)
    figures.ended, figures.faults = told["ended"], told["faults"]
    figures.done = sum(figures.ended.values())
    figures.judge()
    return figures


def prepare(node: Node) -> None:
    """Configure the node, and put the day's modules there."""
    configure(node, CONFIG, CONFIG_PATH)
    for folder, modules in MODULES.items():
        place = f"tests/soak/{folder}"
        node.run(f"mkdir -p {FOLDER}/{place}; touch {FOLDER}/tests/__init__.py")
        node.run(f"touch {FOLDER}/tests/soak/__init__.py {FOLDER}/{place}/__init__.py")
        for module in modules:
            node.put(PROJECT / place / f"{module}.py", f"{FOLDER}/{place}/{module}.py")


class Host:
    """Front door and workers of this host; there is no guard, and its cards are files."""

    def __init__(self, door: FrontDoor, workers: list[KeptWorker]) -> None:
        self._door = door
        self._workers = workers
        self._loop = asyncio.get_running_loop()

    def processes(self) -> Mapping[str, int]:
        """Gateway and workers."""
        found = {f"worker {one.number}": one.pid for one in self._workers if one.ready.is_set()}
        return {"gateway": self._door.process.pid, **found}

    def heat(self, hot: bool) -> None:
        """What card 0's guard would publish."""
        if hot:
            state = ThermalState.ALERT
            self._door.guards.publish(0, state=state, batch_limit=1, dispatch_duty=0.5)
        else:
            self._door.guards.publish(0)

    def recycle(self) -> None:
        """SIGTERM, then its next life; not while that is still starting, on a busy machine."""
        if self._workers[1].ready.is_set():
            self._loop.call_soon_threadsafe(self._workers[1].retire)


async def on_host(folder: Path, seconds: float, seed: int) -> Day:
    """The front door and its workers through a day, as processes of this host."""
    figures = Day("a day of mixed load, on this host")
    async with front_door(folder) as door, AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(
                KeptWorker(door.dispatch, number, options={"delay_seconds": 0.1})
            )
            for number in range(2)
        ]
        load = Load(door.port, seed)
        place = Host(door, workers)
        await asyncio.to_thread(program.run, place, load, seconds, figures.looks.append)
    figures.ended, figures.faults = dict(load.ended), load.faults
    figures.done = sum(figures.ended.values())
    figures.judge()
    return figures


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="day-") as place:
        print(asyncio.run(on_host(Path(place), float(sys.argv[1]), 1)))
        print(json.dumps({"seconds": sys.argv[1]}))
