# SPDX-License-Identifier: Apache-2.0
"""The campaign itself: ``python3 -m tests.soak.random_kills.in_node COUNT SEED PAIRS``.

PAIRS is the share of rounds in which two are struck at once: who comes back may need who is away.

Each kill leaves a line of JSON on standard output (see ``Round``), the end one with what became of
the requests. Every choice of a round comes from the seed and the round's number alone.

In the first half anybody may be struck. In the second half guard and gateway are spared, so that
what they hold can be followed over many deaths of the others.
"""

import json
import random
import sys
import time
from dataclasses import asdict, dataclass

import psutil

from gpuwarden import names
from tests.soak.random_kills import processes, watch
from tests.soak.random_kills.load import PORT, Load
from tests.soak.random_kills.pace import Pace
from tests.soak.random_kills.strikes import Part, Strikes, systemctl
from tests.soak.random_kills.watch import Whole

CLIENTS = 3
SPARED = ("guard", "gateway")
LONGEST_DELAY_SECONDS = 1.5
DEADLINE_SECONDS = 240.0  # what counts is the figure; this ends the waiting
LOOK_SECONDS = 0.2
LONGEST_REST_SECONDS = 30.0  # for the gateway to see its callers' connections end
OPEN = (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT)  # at the gateway's end
FAILED_OF_OURS = ("medgemma-", "gpuwarden-")


@dataclass(frozen=True)
class Round:
    """What one round was.

    :ivar parts: who was struck, :ivar strikes: how.
    :ivar took_seconds: from the first strike until everything was as before.
    :ivar pass_seconds: what ``python3 -c pass`` took here meanwhile.
    :ivar in_flight: requests that waited for an answer at the strike.
    :ivar fault: what had not come back at the deadline; empty: everything had.
    :ivar held: by spared part: PID, descriptors but for memfds, and KiB of anonymous memory.
    :ivar memfds: how many there are, :ivar memfd_bytes: and their size.
    :ivar shared_kib: all memory of the node in files without a disk.
    """

    parts: list[str]
    strikes: list[str]
    took_seconds: float
    pass_seconds: float
    in_flight: int
    fault: str
    spared: bool
    held: dict[str, tuple[int, int, int]]
    memfds: int
    memfd_bytes: int
    shared_kib: int


def main(arguments: list[str]) -> None:
    """Strike, look, tell."""
    count, seed, pairs = int(arguments[0]), int(arguments[1]), float(arguments[2])
    load, pace = Load(CLIENTS, seed), Pace()
    strikes = Strikes(load.front_door)
    before = watch.whole()
    load.start()
    pace.start()
    try:
        done = 0
        while done < count:
            chance = random.Random(f"{seed} {done}")
            spare = done >= count / 2
            parts = [part for part in strikes.parts() if not (spare and part.name in SPARED)]
            wanted = 2 if chance.random() < pairs else 1
            one = strike_and_look(parts, wanted, chance, before, load, pace, spare)
            print(json.dumps(asdict(one)), flush=True)
            done += len(one.parts)
    finally:
        load.stop()
        pace.stop()
    print(json.dumps({"requests": load.counts(), "failed_units": failed_units()}), flush=True)


def strike_and_look(
    parts: list[Part],
    wanted: int,
    chance: random.Random,
    before: Whole,
    load: Load,
    pace: Pace,
    spare: bool,
) -> Round:
    """One round."""
    order = in_random_order(parts, chance)
    time.sleep(chance.uniform(0, LONGEST_DELAY_SECONDS))
    in_flight = load.in_flight
    began = time.monotonic()
    struck = strike(order, wanted, chance)
    fault = look_until_whole(before)
    took_seconds, pass_seconds = time.monotonic() - began, pace.pass_seconds(began)
    with load.at_rest():  # each request under way holds a connection and a buffer
        wait_until_hung_up()
        memfds, memfd_bytes = processes.shared_memory(
            [pid for pids in watch.our_processes().values() for pid in pids]
        )
        return Round(
            parts=list(struck),
            strikes=list(struck.values()),
            took_seconds=took_seconds,
            pass_seconds=pass_seconds,
            in_flight=in_flight,
            fault=fault,
            spared=spare,
            held=held_by_spared(),
            memfds=memfds,
            memfd_bytes=memfd_bytes,
            shared_kib=watch.shared_kib(),
        )


def strike(order: list[Part], wanted: int, chance: random.Random) -> dict[str, str]:
    """Strike as many as are wanted of those that can be struck; how, by name."""
    struck: dict[str, str] = {}
    for part in order:
        if len(struck) < wanted and (told := part.strike(chance)):
            struck[part.name] = told
    return struck


def in_random_order(parts: list[Part], chance: random.Random) -> list[Part]:
    """All parts, the heavier ones rather sooner."""
    return sorted(parts, key=lambda part: chance.random() ** (1 / part.weight), reverse=True)


def look_until_whole(before: Whole) -> str:
    """Wait until nothing is missing; what is missing still, at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while what := watch.missing(before):
        if time.monotonic() > deadline:
            return what
        time.sleep(LOOK_SECONDS)
    return ""


def wait_until_hung_up() -> None:
    """Until the gateway has closed what its callers have; what it never closes shows as growth."""
    deadline = time.monotonic() + LONGEST_REST_SECONDS
    while time.monotonic() < deadline and any(
        one.laddr and one.laddr.port == PORT and one.status in OPEN
        for one in psutil.net_connections("tcp")
    ):
        time.sleep(LOOK_SECONDS)


def held_by_spared() -> dict[str, tuple[int, int, int]]:
    """What guard and gateway hold."""
    units = watch.our_processes()
    found = {}
    for name, unit in zip(SPARED, (names.GUARD_UNIT, names.GATEWAY_UNIT), strict=True):
        held = processes.held(processes.main_process(units.get(unit, [])))
        if held is not None:
            found[name] = (held.pid, held.descriptors - held.memfds, held.anonymous_kib)
    return found


def failed_units() -> list[str]:
    """Units of ours that systemd calls failed; a hook that was killed has failed."""
    listed = systemctl("list-units", "--failed", "--plain", "--no-legend").splitlines()
    units = [line.split()[0] for line in listed]
    ours = [unit for unit in units if unit.startswith(FAILED_OF_OURS)]
    return [unit for unit in ours if not unit.startswith(watch.HOOKS)]


if __name__ == "__main__":
    main(sys.argv[1:])
