# SPDX-License-Identifier: Apache-2.0
"""Ten times as many requests as the workers can answer: who is accepted is answered in time.

"Within 50 ms" is what the service takes, not what a busy machine does to it: the kernel counts how
long the front door was ready to run and had no CPU. That share of the refusals may take longer, and
one in a hundred.

Callers that don't wait for each other: a request begins each so many milliseconds, whatever became
of those before. First a few callers measure what the service can do; after the overload they ask
again, and have to be answered as fast within a second.
"""

import asyncio
import contextlib
import random
import re
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.gateway_node import Reply, read_reply
from tests.soak.front_door import Callers, FrontDoor, KeptWorker, front_door
from tests.soak.random_kills.processes import held, shared_memory
from tests.soak.thermal import Figures

WORKERS = 2
SHARE = 10  # times what the workers can do
DEADLINE_SECONDS = 30.0  # request_timeout_seconds as shipped
REFUSED_SECONDS = 0.05
SLOW_SHARE = 0.01
FULL_SPEED_SHARE = 0.8
FULL_SPEED_SECONDS = 1.0  # until it is reached
BODIES = ((2_000, 0.9), (40_000, 0.09), (1_500_000, 0.01))
# Beside the bodies, which are in the pool: the requests themselves, sockets, the allocator's.
GROWTH_KIB = 64 * 1024
POOL_BYTES = 512 << 20  # pool_bytes as shipped
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Model:
    """What the workers run: how long a batch takes there, and how large it is."""

    name: str
    delay_seconds: float
    max_batch: int
    measured_seconds: float

    @property
    def callers(self) -> int:
        """As many as keep all workers busy with full batches, and some that wait."""
        return WORKERS * self.max_batch * 4

    @property
    def requests_per_second(self) -> float:
        """What the workers can do at most."""
        return WORKERS * self.max_batch / self.delay_seconds


QUICK = Model("0.1 s a batch", 0.1, 2, 3.0)
# 100 requests that wait are 50 s of this one's work: more than the deadline.
SLOW = Model("2 s a batch", 2.0, 2, 12.0)


@dataclass(frozen=True)
class Outcome:
    """What came of one request; times of ``time.monotonic()``."""

    began: float
    ended: float
    status: int
    retry_after: bool

    @property
    def seconds(self) -> float:
        """How long its caller waited."""
        return self.ended - self.began


@dataclass
class Overload(Figures):
    """What was seen."""

    outcomes: list[Outcome] = field(default_factory=list)
    offered_per_second: float = 0.0
    before_per_second: float = 0.0
    after_per_second: float = 0.0
    first_answer_seconds: float = 0.0
    idle_kib: int = 0
    most_kib: int = 0
    most_memfd_bytes: int = 0
    starved_share: float = 0.0  # of the time, the front door was ready and had no CPU

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.table()])

    def table(self) -> list[str]:
        """The figures, a line each."""
        told = Counter(one.status for one in self.outcomes)
        ends = ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(told.items()))
        refused = self._waits(429)
        answered = self._waits(200)
        return [
            f"  {self.offered_per_second:.0f} requests a second offered, "
            f"{self.before_per_second:.1f} can be answered: {ends}",
            f"  answered in {quantile(answered, 0.5):.1f} s in the median, {max(answered):.1f} s "
            f"at most; refused in {1000 * quantile(refused, 0.5):.1f} ms in the median, "
            f"{1000 * quantile(refused, 0.99):.1f} ms at the 99th percentile, "
            f"{1000 * max(refused):.1f} ms at most",
            f"  {100 * self.share_slow():.1f} % of the refusals took over 50 ms; "
            f"{100 * self.starved_share:.1f} % of the time the front door had to wait for a CPU",
            f"  afterwards {self.after_per_second:.1f} a second",
            f"  gateway: RssAnon {self.idle_kib / 1024:.1f} -> {self.most_kib / 1024:.1f} MiB at "
            f"most, bodies {self.most_memfd_bytes / 2**20:.1f} MiB at most",
        ]

    def judge(self) -> None:
        """Name what must not be."""
        for status, count in Counter(one.status for one in self.outcomes).items():
            if status not in (200, 429):
                self.faults.append(f"{count} requests ended with {status}")
        if late := sum(seconds > DEADLINE_SECONDS for seconds in self._waits(200)):
            self.add_late(f"{late} answers came after their deadline")
        if self.share_slow() > self.starved_share + SLOW_SHARE:
            self.add_late(f"{100 * self.share_slow():.1f} % of the refusals took over 50 ms")
        if any(one.status == 429 and not one.retry_after for one in self.outcomes):
            self.faults.append("a refusal did not say when to come again")
        if self.most_kib - self.idle_kib > GROWTH_KIB or self.most_memfd_bytes > POOL_BYTES:
            self.faults.append("memory was not bounded")
        if self.after_per_second < FULL_SPEED_SHARE * self.before_per_second:
            self.add_late(f"only {self.after_per_second:.1f} a second afterwards")

    def share_slow(self) -> float:
        """Which share of the refusals took longer than one may."""
        waits = self._waits(429)
        return sum(seconds > REFUSED_SECONDS for seconds in waits) / len(waits)

    def _waits(self, status: int) -> list[float]:
        return sorted(one.seconds for one in self.outcomes if one.status == status) or [0.0]


def quantile(ordered: list[float], share: float) -> float:
    """What that share of the figures is not above."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def campaign(folder: Path, model: Model, seconds: float, seed: int) -> Overload:
    """Overload workers that run such a model for so long."""
    figures = Overload(f"overload, {model.name}")
    settings = {
        "options": {"delay_seconds": model.delay_seconds},
        "max_batch": model.max_batch,
    }
    async with front_door(folder) as door, AsyncExitStack() as stack:
        for number in range(WORKERS):
            worker = KeptWorker(door.dispatch, number, **settings)
            await stack.enter_async_context(worker)
        callers = Callers(door, (2_000,), random.Random(seed))
        figures.before_per_second = await speed(callers, model)
        figures.idle_kib = memory(door)[0]
        flood = Flood(door, random.Random(seed))
        figures.offered_per_second = SHARE * model.requests_per_second
        began, starved = time.monotonic(), starved_seconds(door)
        await flood.run(figures.offered_per_second, seconds)
        starved = starved_seconds(door) - starved
        figures.starved_share = starved / (time.monotonic() - began)
        figures.most_kib, figures.most_memfd_bytes = flood.most_kib, flood.most_memfd_bytes
        figures.after_per_second = await speed(callers, model, FULL_SPEED_SECONDS)
    figures.outcomes, figures.done = flood.outcomes, len(flood.outcomes)
    figures.faults += callers.faults
    figures.slowest_seconds = max(one.seconds for one in flood.outcomes)
    figures.judge()
    return figures


async def speed(callers: Callers, model: Model, warm_seconds: float = 1.0) -> float:
    """Answers a second, from ``warm_seconds`` on, of as many callers as keep the workers busy."""
    callers.over = False
    going = [asyncio.create_task(callers.go_on()) for _ in range(model.callers)]
    await asyncio.sleep(max(warm_seconds, model.delay_seconds))
    known = len(callers.asked)
    await asyncio.sleep(model.measured_seconds)
    ends = [one.ended for one in callers.asked[known:] if one.status == 200]
    callers.over = True
    await asyncio.gather(*going)
    return (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0


class Flood:
    """Requests at a rate of their own, on connections that are used again."""

    def __init__(self, door: FrontDoor, chance: random.Random) -> None:
        self.outcomes: list[Outcome] = []
        self.most_kib, self.most_memfd_bytes = memory(door)
        self._door = door
        self._chance = chance
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._bodies = {size: bytes(size) for size, _ in BODIES}

    async def run(self, per_second: float, seconds: float) -> None:
        """Offer so many; return when each has its end."""
        began = time.monotonic()
        watch = asyncio.create_task(self._watch())
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_second * seconds)):
                await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
                group.create_task(self._one())
        watch.cancel()
        for _, writer in self._idle:
            writer.close()

    async def _one(self) -> None:
        sizes, weights = [size for size, _ in BODIES], [weight for _, weight in BODIES]
        body = self._bodies[self._chance.choices(sizes, weights)[0]]
        began = time.monotonic()
        reply = await self._ask(body)
        status = 0 if reply is None else reply.status
        told = reply is not None and re.fullmatch(r"\d+", reply.headers.get("retry-after", ""))
        self.outcomes.append(Outcome(began, time.monotonic(), status, bool(told)))

    async def _ask(self, body: bytes) -> Reply | None:
        """One request; None where no answer came."""
        connection = self._idle.pop() if self._idle else await self._connect()
        reader, writer = connection
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        reply = None
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            writer.write(head.encode() + body)
            reply = await read_reply(reader, 2 * DEADLINE_SECONDS)
        if reply is None or reply.headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append(connection)
        return reply

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._door.port)

    async def _watch(self) -> None:
        while True:
            kib, memfd_bytes = memory(self._door)
            self.most_kib = max(self.most_kib, kib)
            self.most_memfd_bytes = max(self.most_memfd_bytes, memfd_bytes)
            await asyncio.sleep(LOOK_SECONDS)


def memory(door: FrontDoor) -> tuple[int, int]:
    """The front door's KiB of anonymous memory, and its bytes of buffers."""
    pid = door.process.pid
    kept = held(pid)
    assert kept is not None, door.log()
    return kept.anonymous_kib, shared_memory([pid])[1]


def starved_seconds(door: FrontDoor) -> float:
    """For how long the front door was ready to run, so far, and had no CPU."""
    told = Path(f"/proc/{door.process.pid}/schedstat").read_text()
    return int(told.split()[1]) / 1e9


def overload(model: Model, seconds: float, seed: int) -> Overload:
    """The campaign, its files in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="overload-") as folder:
        return asyncio.run(campaign(Path(folder), model, seconds, seed))
