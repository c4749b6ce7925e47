# SPDX-License-Identifier: Apache-2.0
"""Kills one card's thermal guard again and again; runs in the node itself, on gpuwarden's modules.

    python3 kills_in_node.py GPU COUNT SEED

One interpreter for all kills: where every question to the node is a new process, the asking takes
longer than the guard's whole return. Each kill leaves a line of JSON on standard output: ``took``,
the seconds until the card had its original again, and ``fault``, empty where nothing was wrong.

Half of the kills come while the guard cools its card, half while it gives back, each after a random
delay, since its writes are what a kill may fall between.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gpuwarden import names
from gpuwarden.control.requests import CLEAR_OVERRIDE, OVERRIDE
from gpuwarden.control.socket import ControlUnreachableError, ask
from gpuwarden.simulator import places
from gpuwarden.simulator.cli import ask as ask_simulator

LONGEST_DELAY_SECONDS = 2.5
DEADLINE_SECONDS = 300.0  # an emulated node beside others is slow; what counts is that it ends
LOOK_EVERY_SECONDS = 0.2
OVERRIDE_SECONDS = 3600

Found = TypeVar("Found")


class KilledGuard:
    """One card, seen from outside, and its guard."""

    def __init__(self, gpu_index: int) -> None:
        self._gpu_index = gpu_index
        self._socket = names.thermal_control_socket(gpu_index)
        self._snapshot = names.thermal_snapshot_file(gpu_index)

    def limit_watts(self) -> float:
        """The simulated card's own limit, whatever our guard believes."""
        cards = ask_simulator(places.CONTROL_SOCKET, {"command": "show"})["cards"]
        return float(cards[self._gpu_index]["power_limit_watts"])

    def published(self) -> dict[str, Any]:
        """The guard's snapshot."""
        document: dict[str, Any] = json.loads(self._snapshot.read_bytes())
        return document

    def order(self, request: str, **arguments: object) -> None:
        """Ask the guard, or the next one if this one is just away."""

        def answered() -> bool:
            try:
                ask(self._socket, {"request": request, **arguments}, DEADLINE_SECONDS)
            except ControlUnreachableError:
                return False
            return True

        wait_for(answered, f"an answer to {request}")

    def kill_once(self, original_watts: float, chance: random.Random) -> str:
        """One kill; what must not be, in words, once the card has its original again."""
        pid = self.published()["pid"]
        self.order(OVERRIDE, state="alert", seconds=OVERRIDE_SECONDS)
        if chance.random() < 0.5:
            wait_for(lambda: self.limit_watts() < original_watts, "a lower limit")
            self.order(CLEAR_OVERRIDE)
        time.sleep(chance.uniform(0, LONGEST_DELAY_SECONDS))
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.published()["pid"] != pid, "the next guard")
        faults = [f"{held:g} W" for held in [self.limit_watts()] if held > original_watts]
        self.order(CLEAR_OVERRIDE)
        wait_for(lambda: self.limit_watts() == original_watts, "the original limit")
        data = wait_for(self.known_original, "a known original")
        if data != original_watts:
            faults.append(f"{data:g} W taken for the original")
        return ", ".join(faults)

    def known_original(self) -> float | None:
        """What the guard takes for the administrator's limit; None while it doesn't know."""
        original: float | None = self.published()["data"]["original_power_limit_watts"]
        return original


def wait_for(look: Callable[[], Found], what: str) -> Found:
    """The first true answer of ``look``. Raises TimeoutError."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {DEADLINE_SECONDS:g} s")
        time.sleep(LOOK_EVERY_SECONDS)
    return found


def main(arguments: list[str]) -> None:
    """Kill, look, tell. What never comes is a fault, told with what was there instead."""
    gpu_index, count, seed = (int(each) for each in arguments)
    guard = KilledGuard(gpu_index)
    chance = random.Random(seed)
    original_watts = guard.limit_watts()
    for _ in range(count):
        started = time.monotonic()
        try:
            fault = guard.kill_once(original_watts, chance)
        except TimeoutError as error:
            fault = f"{error}: {guard.published()} on a card at {guard.limit_watts():g} W"
        took = time.monotonic() - started
        print(json.dumps({"took": round(took, 1), "fault": fault}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
