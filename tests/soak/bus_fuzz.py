# SPDX-License-Identifier: Apache-2.0
"""The bus's campaign: thousands of calls as no sane client makes them, by the guard's real objects.

Natively, on a private bus: what is tried is our code, not the node.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from gpuwarden.bus.errors import BusError
from gpuwarden.bus.library import Message
from gpuwarden.bus.objects.publisher import GATEWAY_OBJECT
from gpuwarden.names import BUS_NAME, LOG_CONTROL_OBJECT, ROOT_OBJECT, gpu_object, worker_object
from tests.integration.bus_fuzz import FuzzClient, Target, calls, fault_of, targets_of
from tests.integration.bus_peers import GUARD, client, service
from tests.integration.private_bus import (
    PrivateBus,
    private_bus,
    rss_bytes,
    shipped_policy,
)
from tests.integration.systemd_peer import POLICY
from tests.open_files import open_files

PATHS = (ROOT_OBJECT, gpu_object(0), worker_object(1), GATEWAY_OBJECT, LOG_CONTROL_OBJECT)
GROWTH_LIMIT_BYTES = 20 * 2**20  # the promise
# Connections of the last orders to the cards' guards and the gateway, both ends: they close by
# themselves a moment after the answer. What leaks by the call is hundreds.
UNDER_WAY = 32
WARM_UP_CALLS = 300
OTHERS_SECONDS = 30.0  # to tell a hang from a busy machine


@dataclass
class Figures:
    """What was seen; ``faults``: what must not be, in words."""

    calls: int = 0
    answered: int = 0
    thrown_out: int = 0
    grown_bytes: int = 0
    slowest_seconds: float = 0.0
    error_names: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = "; ".join(self.faults[:5]) or "none"
        return (
            f"{'bus-fuzz':<28} {self.calls:>5}   {self.slowest_seconds:>8.1f}   {faults}\n"
            f"    answered {self.answered}, hung up on by the bus {self.thrown_out}, "
            f"grown {self.grown_bytes / 2**20:.1f} MiB, errors: {dict(self.error_names)}"
        )


async def fuzz(count: int, random_seed: int) -> Figures:
    """Call so often; what came of it."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="gpuwarden-fuzz-") as name:
        log = Path(name) / "log"
        async with private_bus([shipped_policy(), POLICY]) as bus:
            with log.open("wb") as stderr:
                async with service(GUARD, bus, str(bus.folder), stderr=stderr) as process:
                    targets = await introspected(bus)
                    run = asyncio.to_thread(
                        call_all, bus, targets, process.pid, count, random_seed, figures
                    )
                    await run
                    await look_at_others(bus, figures)
                    if process.returncode is not None:
                        figures.faults.append(f"the service ended with {process.returncode}")
        if "Traceback" in log.read_text():
            figures.faults.append(f"a fault of ours: {log.read_text()[-2000:]}")
    return figures


async def introspected(bus: PrivateBus) -> list[Target]:
    """Every method there is, as the service itself tells."""
    found = []
    async with client(bus) as connection:
        for path in PATHS:
            (xml,) = await connection.call(
                BUS_NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect"
            )
            found += targets_of(path, xml)
    return found


async def look_at_others(bus: PrivateBus, figures: Figures) -> None:
    """Whether somebody else is served as ever."""
    async with client(bus) as other:
        manager = (BUS_NAME, ROOT_OBJECT, f"{BUS_NAME}.Manager")
        try:
            await other.call(*manager, "GetStatus", timeout_seconds=OTHERS_SECONDS)
        except BusError as error:
            figures.faults.append(f"another client gets {error}")


def call_all(
    bus: PrivateBus, targets: list[Target], pid: int, count: int, random_seed: int, figures: Figures
) -> None:
    """The calls, in a thread of their own, since the client waits."""
    fuzzer = FuzzClient(bus.address)
    before = [0, 0]

    @seed(random_seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls(targets))
    def one(message: Message) -> None:
        if figures.calls == min(WARM_UP_CALLS, count // 2):
            before[:] = rss_bytes(pid), open_files(pid)
        figures.calls += 1
        call_once(fuzzer, message, figures)

    one()
    figures.thrown_out = fuzzer.thrown_out
    fuzzer.close()
    figures.grown_bytes = rss_bytes(pid) - before[0]
    if figures.grown_bytes > GROWTH_LIMIT_BYTES:
        figures.faults.append(f"grown by {figures.grown_bytes / 2**20:.1f} MiB")
    if open_files(pid) > before[1] + UNDER_WAY:
        figures.faults.append(f"{open_files(pid) - before[1]} descriptors more")


def call_once(fuzzer: FuzzClient, message: Message, figures: Figures) -> None:
    """One call and its answer."""
    started = time.monotonic()
    try:
        answer = fuzzer.ask(message)
    except TimeoutError:
        where = f"{message.path} {message.interface}.{message.member}({message.signature})"
        figures.faults.append(f"no answer to {where}")
        fuzzer.close()
        return
    figures.slowest_seconds = max(figures.slowest_seconds, time.monotonic() - started)
    if answer is None:
        return
    figures.answered += 1
    if answer.error:
        figures.error_names[answer.error.rpartition(".")[2]] += 1
    if fault := fault_of(answer):
        figures.faults.append(fault)


if __name__ == "__main__":
    print(asyncio.run(fuzz(int(sys.argv[1]), int(sys.argv[2]))))
