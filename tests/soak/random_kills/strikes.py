# SPDX-License-Identifier: Apache-2.0
"""Who can be struck, and how."""

import random
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gpuwarden import names
from tests.soak.random_kills import processes
from tests.soak.random_kills.load import FrontDoor
from tests.soak.random_kills.watch import CARDS

DBUS_UNIT = "dbus.service"
# StartLimitBurst=5 in 120 s, after which the guard waits for 30 s and more: a promise of its own.
START_LIMIT, START_LIMIT_SECONDS = 4, 130.0
WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.1
HOOK_UNIT = names.hook_unit(0, 0)

# What may happen to it: does it, and says what it did; empty where there was nothing to do it to.
Strike = Callable[[random.Random], str]


@dataclass(frozen=True)
class Part:
    """Something that may be struck; ``weight`` tells how often beside others."""

    name: str
    weight: float
    strike: Strike


class Strikes:
    """The parts of this node."""

    def __init__(self, front_door: FrontDoor) -> None:
        self._front_door = front_door
        self._worker_deaths: dict[int, deque[float]] = {
            card: deque(maxlen=START_LIMIT) for card in CARDS
        }

    def parts(self) -> list[Part]:
        """All that run here."""
        known = [
            Part("guard", 2, lambda _chance: kill_main(names.GUARD_UNIT)),
            Part("gateway", 2, self._gateway),
            Part("worker", 4, self._worker),
            Part("decoding process", 3, decoding_process),
            Part("thermal guard", 3, lambda chance: kill_main(names.thermal_unit(card_of(chance)))),
            Part("scan", 3, lambda chance: kill_main(names.scan_unit(card_of(chance)))),
            Part("hook", 1, hook),
            Part("bus", 1, bus),
            Part("systemd", 1, systemd),
        ]
        running = processes.processes_by_unit()
        return [part for part in known if part.name != "scan" or names.scan_unit(0) in running]

    def _gateway(self, _chance: random.Random) -> str:
        with self._front_door.dying():
            return kill_main(names.GATEWAY_UNIT)

    def _worker(self, chance: random.Random) -> str:
        number = card_of(chance)
        deaths = self._worker_deaths[number]
        now = time.monotonic()
        if len(deaths) == START_LIMIT and now - deaths[0] < START_LIMIT_SECONDS:
            return ""
        deaths.append(now)
        return kill_main(names.worker_unit(number))


def card_of(chance: random.Random) -> int:
    """One of the cards, or of the workers."""
    return chance.choice(CARDS)


def kill_main(unit: str) -> str:
    """Kill what systemd has started for a unit."""
    pid = processes.main_process(processes.processes_by_unit().get(unit, []))
    if pid == 0:
        return ""
    processes.kill(pid)
    return f"SIGKILL of {unit} ({pid})"


def decoding_process(chance: random.Random) -> str:
    """Kill a child of a worker."""
    unit = names.worker_unit(card_of(chance))
    pids = processes.processes_by_unit().get(unit, [])
    children = [pid for pid in pids if processes.parent(pid) != 1]
    if not children:
        return ""
    pid = chance.choice(sorted(children))
    processes.kill(pid)
    return f"SIGKILL of a decoding process of {unit} ({pid})"


def hook(chance: random.Random) -> str:
    """Have a hook run, kill it or its command, and wait until nothing of it is left."""
    wait_for(hook_runs, "a running hook")
    pid = chance.choice(sorted(hook_processes()) or [0])
    if pid == 0:
        return ""  # it has ended by itself
    processes.kill(pid)
    wait_for(lambda: not hook_processes(), "the end of the hook")
    return f"SIGKILL in {HOOK_UNIT} ({pid})"


def hook_runs() -> bool:
    """Whether it does; if not, it is asked for: one that is just ending swallows the order."""
    if not hook_processes():
        systemctl("start", "--no-block", HOOK_UNIT)
    return bool(hook_processes())


def hook_processes() -> list[int]:
    """Those of the hook's unit."""
    return processes.processes_by_unit().get(HOOK_UNIT, [])


def bus(chance: random.Random) -> str:
    """Kill the bus, or have it restarted."""
    if chance.random() < 0.5:
        systemctl("restart", DBUS_UNIT)
        return "restart of the bus"
    told = systemctl("show", "-P", "MainPID", DBUS_UNIT)
    processes.kill(int(told))
    return f"SIGKILL of the bus ({told})"


def systemd(chance: random.Random) -> str:
    """Have systemd read its units again, or begin anew itself."""
    verb = chance.choice(["daemon-reload", "daemon-reexec"])
    systemctl(verb)
    return verb


def systemctl(*arguments: str) -> str:
    """What systemctl prints. Raises CalledProcessError."""
    done = subprocess.run(["systemctl", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def wait_for(look: Callable[[], bool], what: str) -> None:
    """Return when ``look`` says so. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {WAIT_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
