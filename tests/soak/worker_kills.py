# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of busy workers under callers: nobody may notice but by a wait that has a bound.

Real processes on this host; what restarts the workers does so at once. The bound of a wait: the
restart, the service time for each request that the dead worker had (they are retried alone), and
0.2 s. The next kill comes when all workers serve again and whoever waited then has an answer: a
request that is alone in three dying workers is to fail, and here none may.
"""

import asyncio
import random
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.front_door import (
    LOOK_SECONDS,
    Asked,
    Callers,
    FrontDoor,
    KeptWorker,
    front_door,
)
from tests.soak.thermal import Figures

CALLERS = 8
BODY_BYTES = (2_000, 2_000, 100_000, 1_500_000)
DELAY_SECONDS = 0.1  # of a batch on the card
MAX_BATCH = 2
SLACK_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 0.4
LONE_REQUESTS = 10


@dataclass(frozen=True)
class Kill:
    """One death of a busy worker; times of ``time.monotonic()``.

    :ivar suspects: requests that it had.
    """

    at: float
    ready_at: float
    suspects: int

    @property
    def restart_seconds(self) -> float:
        """How long the worker was away."""
        return self.ready_at - self.at

    def bound_seconds(self, service_seconds: float) -> float:
        """What a caller who was there may have to wait."""
        return self.restart_seconds + service_seconds * self.suspects + SLACK_SECONDS

    def touches(self, one: Asked) -> bool:
        """Whether a request was under way while the worker was away."""
        return one.began < self.ready_at and one.ended > self.at


@dataclass
class WorkerKills(Figures):
    """What was seen."""

    workers: int = 2
    service_seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.table()])

    def table(self) -> list[str]:
        """The figures, a line each."""
        restarts = sorted(kill.restart_seconds for kill in self.kills)
        suspects = [kill.suspects for kill in self.kills]
        answered = sum(one.status == 200 for one in self.asked)
        hung = sum(one.status == 0 for one in self.asked)
        worst = max(self.margins(), default=0.0)
        return [
            f"  {len(self.asked)} requests, {answered} answered, "
            f"{len(self.asked) - answered - hung} failed, {hung} without an answer",
            f"  restart {statistics.median(restarts):.2f} s in the median, {restarts[-1]:.2f} s at "
            f"most; {statistics.fmean(suspects):.1f} suspects a kill, {max(suspects)} at most; "
            f"service time {self.service_seconds:.3f} s",
            f"  slowest answer {self.slowest_seconds:.2f} s; the nearest to its bound took "
            f"{100 * worst:.0f} % of it",
        ]

    def margins(self) -> list[float]:
        """By kill: the slowest answer it touched, as a share of what was allowed."""
        return [
            slowest(self.asked, kill) / kill.bound_seconds(self.service_seconds)
            for kill in self.kills
        ]

    def judge(self) -> None:
        """Name what must not be."""
        for one in self.asked:
            if one.status not in (0, 200):  # no answer is a fault already
                self.faults.append(f"a request was answered {one.status}")
        for number, share in enumerate(self.margins()):
            # Where it was the only one, being answered after its restart is all that is promised.
            if share > 1 and self.workers > 1:
                self.add_late(f"an answer took {share:.2f} of its bound after kill {number}")


def slowest(asked: list[Asked], kill: Kill) -> float:
    """The longest wait that a kill had a part in."""
    return max((one.seconds for one in asked if kill.touches(one)), default=0.0)


async def campaign(folder: Path, kills: int, seed: int, workers: int = 2) -> WorkerKills:
    """Kill busy workers so often, one after the other."""
    figures = WorkerKills(f"SIGKILL of a busy worker of {workers}", workers=workers)
    chance = random.Random(seed)
    async with front_door(folder) as door, AsyncExitStack() as stack:
        settings = {"options": {"delay_seconds": DELAY_SECONDS}, "max_batch": MAX_BATCH}
        kept = [
            await stack.enter_async_context(KeptWorker(door.dispatch, number, **settings))
            for number in range(workers)
        ]
        callers = Callers(door, BODY_BYTES, chance)
        lone = [await callers.ask() for _ in range(LONE_REQUESTS)]
        figures.service_seconds = statistics.median(one.seconds for one in lone)
        going = [asyncio.create_task(callers.go_on()) for _ in range(CALLERS)]
        while figures.done < kills:
            await asyncio.sleep(chance.uniform(0, LONGEST_PAUSE_SECONDS))
            kill = await strike(door, chance.choice(kept))
            await callers.until_answered(kill.ready_at)
            if kill.suspects:
                figures.kills.append(kill)
                figures.count()
        callers.over = True
        await asyncio.gather(*going)
    figures.asked, figures.faults = callers.asked, callers.faults
    figures.slowest_seconds = max(one.seconds for one in callers.asked)
    figures.judge()
    return figures


async def strike(door: FrontDoor, worker: KeptWorker) -> Kill:
    """Kill a worker, and return when its next life serves."""
    at = time.monotonic()
    pid = worker.kill()
    await worker.until_ready()
    ready_at = time.monotonic()
    while (suspects := door.left_behind(pid)) is None:  # noqa: ASYNC110 - it is told in a file
        await asyncio.sleep(LOOK_SECONDS)
    return Kill(at, ready_at, suspects)


def worker_kills(kills: int, seed: int, workers: int = 2) -> WorkerKills:
    """The campaign, its files in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        return asyncio.run(campaign(Path(folder), kills, seed, workers))
