# SPDX-License-Identifier: Apache-2.0
"""The parts of the benchmark: each puts its loads on all systems, and judges what it saw."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.bench.dataplane.abandoned import abandon_and_ask
from tests.bench.dataplane.floors import raw_floors
from tests.bench.dataplane.idle import processors_awake
from tests.bench.dataplane.load import Load
from tests.bench.dataplane.report import Goal, Section, figure, middle, ratio
from tests.bench.dataplane.rounds import Round, awake, load_of, press
from tests.bench.dataplane.systems import (
    BARE,
    FLOOR,
    GATEWAY,
    LITSERVE,
    MOSEC,
    PREPARED,
    QUEUE,
    QUICK,
    System,
)

IMAGE_BYTES = 32 << 20  # 4096 x 4096 pixels of 16 bits
JSON_BYTES = 150
BESIDE_BYTES = 4096
PUSHING_CLIENTS = 2
SERVICE_SECONDS = 0.3
ABANDONED = 20

Loads = Sequence[tuple[int, int]]  # body's bytes and clients, of those that press together
Seen = dict[str, list[Round]]


@dataclass(frozen=True)
class Scale:
    """How long it all takes."""

    rounds: int = 3
    seconds: float = 1.5
    warm_up_seconds: float = 0.4


async def interleave(systems: Sequence[System], loads: Loads, scale: Scale) -> Seen:
    """Each system under the loads, in turn, for so many rounds."""
    seen: Seen = {system.name: [] for system in systems}
    for number in range(scale.rounds):
        for system in systems:
            with awake(system):
                if number == 0:  # buffers made, mappings kept, interpreters warm
                    await press(system, loads_of(system, loads, scale.warm_up_seconds))
                measured = await press(system, loads_of(system, loads, scale.seconds))
            seen[system.name].append(measured)
    return seen


def loads_of(system: System, loads: Loads, seconds: float) -> list[Load]:
    """The same loads for any system."""
    return [load_of(system, size, clients, seconds) for size, clients in loads]


def services(systems: Sequence[System]) -> list[System]:
    """Those that are meant for large bodies and long work, too."""
    return [one for one in systems if one.name not in (FLOOR, BARE, QUICK)]


def median_of(seen: Seen, name: str, value: Callable[[Round], float]) -> float | None:
    """Of a system's rounds; None where it was not measured."""
    return middle([value(one) for one in seen[name]]) if seen.get(name) else None


async def images(systems: Sequence[System], scale: Scale) -> Section:
    """Big bodies: what the way of an image costs."""
    section = Section(
        "32 MB image, every byte added up by the worker",
        ["system", "clients", "MB/s", "of mosec's", "p50 (ms)", "CPU (ms a request)", "of bare"],
    )
    meant = [*services(systems), *(one for one in systems if one.name == BARE)]
    for clients, wanted in ((1, 3.0), (4, 2.5)):
        seen = await interleave(meant, [(IMAGE_BYTES, clients)], scale)
        base = median_of(seen, MOSEC, Round.rate)
        bare = median_of(seen, BARE, lambda one: one.cpu_milliseconds)
        for name, rounds in seen.items():
            rate = middle([one.rate() for one in rounds])
            cpu = middle([one.cpu_milliseconds for one in rounds])
            p50 = middle([one.percentile(0.5) for one in rounds])
            megabytes = figure(rate * IMAGE_BYTES / 1e6)
            row = [name, str(clients), megabytes, ratio(rate, base), figure(p50), figure(cpu)]
            section.rows.append([*row, ratio(cpu, bare)])
            if name != GATEWAY:
                continue
            if base:
                what = f"32 MB, clients: {clients}, MB/s over mosec's"
                section.goals.append(Goal(what, rate / base, wanted, least=True))
            if clients == 1:
                section.goals.append(Goal("32 MB, CPU a request", cpu, 14, "ms"))
    return section


async def small(systems: Sequence[System], scale: Scale) -> Section:
    """Small bodies: what everything that is not the work costs."""
    section = Section(
        "150 bytes of JSON, given back by the worker",
        ["system", "clients", "requests/s", "of mosec's", "p50 (ms)", "p99 (ms)", "CPU (ms)"],
    )
    meant = [one for one in systems if one.name != BARE]
    alone = await interleave(meant, [(JSON_BYTES, 1)], scale)
    with processors_awake() as are_awake:
        steady = await interleave(meant, [(JSON_BYTES, 1)], scale) if are_awake else {}
    together = await interleave(meant, [(JSON_BYTES, 32)], scale)
    for clients, seen in (("1", alone), ("1, awake", steady), ("32", together)):
        base = median_of(seen, MOSEC, Round.rate)
        for name, rounds in seen.items():
            rate = middle([one.rate() for one in rounds])
            row = [name, clients, figure(rate), ratio(rate, base)]
            row += [figure(middle([one.percentile(p) for one in rounds])) for p in (0.5, 0.99)]
            section.rows.append([*row, f"{middle([one.cpu_milliseconds for one in rounds]):.3f}"])
    ours = median_of(together, GATEWAY, Round.rate) or 0.0
    for name, wanted in ((MOSEC, 0.85), (LITSERVE, 8.0)):
        if theirs := median_of(together, name, Round.rate):
            what = f"150 bytes, 32 clients, requests/s over {name}'s"
            section.goals.append(Goal(what, ours / theirs, wanted, least=True))
    for how, seen in (("one client", alone), ("one client, processors awake", steady)):
        floor = median_of(seen, FLOOR, lambda one: one.percentile(0.5))
        p50 = median_of(seen, GATEWAY, lambda one: one.percentile(0.5))
        if p50 is not None and floor is not None:
            what = f"150 bytes, {how}, p50 over that of aiohttp alone"
            section.goals.append(Goal(what, p50 - floor, 0.15, "ms"))
    return section


async def beside(systems: Sequence[System], scale: Scale) -> Section:
    """Small requests while others push images: whether anybody stands in the way."""
    section = Section(
        "4 KB requests (one client) beside two clients that push 32 MB",
        ["system", "p50 (ms)", "p99 (ms)", "small/s", "images/s"],
    )
    loads = [(BESIDE_BYTES, 1), (IMAGE_BYTES, PUSHING_CLIENTS)]
    seen = await interleave(services(systems), loads, scale)
    for name, rounds in seen.items():
        p50, p99 = (middle([one.percentile(share) for one in rounds]) for share in (0.5, 0.99))
        rates = [figure(middle([one.rate(group) for one in rounds])) for group in (0, 1)]
        section.rows.append([name, figure(p50), figure(p99), *rates])
        if name == GATEWAY:
            section.goals.append(Goal("4 KB beside 32 MB, p99", p99, 20, "ms"))
    return section


async def abandoned(systems: Sequence[System], scale: Scale) -> Section:
    """Requests whose callers hang up: whether the next caller waits for work for nobody."""
    section = Section(
        f"{ABANDONED} requests of {SERVICE_SECONDS:g} s given up after 0.1 s, then one more",
        ["system", "answered after (s)", "service times"],
    )
    waits: dict[str, list[float]] = {}
    for _ in range(min(scale.rounds, 2)):
        for system in services(systems):
            with awake(system):
                seconds = await asyncio.to_thread(
                    abandon_and_ask, load_of(system, 0, 1, 0), ABANDONED, SERVICE_SECONDS
                )
            waits.setdefault(system.name, []).append(seconds)
    for name, all_seconds in waits.items():
        seconds = middle(all_seconds)
        section.rows.append([name, f"{seconds:.2f}", f"{seconds / SERVICE_SECONDS:.1f}"])
        if name == GATEWAY:
            what = f"a live request after {ABANDONED} abandoned ones, service times"
            section.goals.append(Goal(what, seconds / SERVICE_SECONDS, 2))
    return section


async def floors(systems: Sequence[System], scale: Scale) -> Section:
    """What no way of doing it can undercut on this machine."""
    section = Section("Floors: what the kernel takes for the bare steps", ["step", "p50"])
    section.rows += await asyncio.to_thread(raw_floors, IMAGE_BYTES, scale.rounds)
    return section


Run = Callable[[Sequence[System], Scale], Awaitable[Section]]
SECTIONS: dict[str, Run] = {
    "floors": floors,
    "images": images,
    "small": small,
    "beside": beside,
    "abandoned": abandoned,
}
PEERS = (PREPARED, QUICK, MOSEC, LITSERVE, QUEUE, FLOOR, BARE)
