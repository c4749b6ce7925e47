# SPDX-License-Identifier: Apache-2.0
"""Interleaved rounds: each system in turn, again and again, so that a busy minute hits them all."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from tests.bench.dataplane import usage
from tests.bench.dataplane.load import Load, Seen
from tests.bench.dataplane.systems import ROOT, System

LINE_LIMIT_BYTES = 64 << 20


@dataclass
class Round:
    """One system under load for a while."""

    seen: list[Seen]
    cpu_seconds: float

    def rate(self, group: int = 0) -> float:
        """Answers a second."""
        return len(self.seen[group].latencies) / self.seen[group].seconds

    def percentile(self, share: float, group: int = 0) -> float:
        """What that share of the answers took at most, in milliseconds."""
        latencies = sorted(self.seen[group].latencies)
        return 1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]

    @property
    def cpu_milliseconds(self) -> float:
        """Of all the system's processes, for one request."""
        return 1000 * self.cpu_seconds / sum(len(one.latencies) for one in self.seen)


@contextlib.contextmanager
def awake(system: System) -> Iterator[None]:
    """While it is measured."""
    usage.thaw(system.roots)
    try:
        yield
    finally:
        usage.freeze(system.roots)


def load_of(system: System, body_bytes: int, clients: int, seconds: float) -> Load:
    """A load for this system."""
    return Load(system.port, system.path, system.headers, body_bytes, clients, seconds)


async def press(system: System, loads: list[Load]) -> Round:
    """Put loads on a system, all at the same time. Raises ValueError where an answer is wrong."""
    clients = [await start_client(load) for load in loads]
    before = usage.cpu_seconds(system.roots)
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(b"\n")
    outputs = await asyncio.gather(*(client.communicate() for client in clients))
    used = usage.cpu_seconds(system.roots) - before
    if any(client.returncode for client in clients):
        raise ValueError(f"{system.name}: a client failed")
    seen = [Seen(**json.loads(output)) for output, _ in outputs]
    if wrong := sum(one.wrong for one in seen):
        raise ValueError(f"{system.name}: {wrong} wrong answers")
    return Round(seen, used)


async def start_client(load: Load) -> asyncio.subprocess.Process:
    """Clients that are connected and wait for the word."""
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.dataplane.load", json.dumps(asdict(load))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        limit=LINE_LIMIT_BYTES,
    )
    assert client.stdout is not None
    if await client.stdout.readline() != b"ready\n":
        raise ValueError("a client did not start")
    return client
