# SPDX-License-Identifier: Apache-2.0
"""The day in the node itself: ``python3 -m tests.soak.day.in_node SECONDS SEED``.

Each look is a line of JSON on standard output, the last one what became of the requests.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict

from gpuwarden import names
from tests.soak.day import program
from tests.soak.day.load import Load
from tests.soak.random_kills import processes

PORT = 7860
HOT_CELSIUS, COOL_CELSIUS = "60", "24"
UNITS = {
    "guard": names.GUARD_UNIT,
    "gateway": names.GATEWAY_UNIT,
    "worker 0": names.worker_unit(0),
    "worker 1": names.worker_unit(1),
}


class Node:
    """The service of this node."""

    def processes(self) -> Mapping[str, int]:
        """Guard, gateway and workers."""
        units = processes.processes_by_unit()
        mains = {name: processes.main_process(units.get(unit, [])) for name, unit in UNITS.items()}
        return {name: pid for name, pid in mains.items() if pid}

    def heat(self, hot: bool) -> None:
        """A hot room, and an override in case that the card copes with it."""
        celsius = HOT_CELSIUS if hot else COOL_CELSIUS
        command("gpuwarden-sim", "set", "--gpu", "0", "--ambient", celsius)
        thermal = (names.BUS_NAME, f"{names.ROOT_OBJECT}/gpu/0", f"{names.BUS_NAME}.Thermal")
        order = ("Override", "su", "alert", "3600") if hot else ("ClearOverride",)
        command("busctl", "call", *thermal, *order)

    def recycle(self) -> None:
        """As an operator orders it."""
        command("gpuwarden", "workers", "restart", "1", "--no-wait")


def command(*words: str) -> None:
    """Run a command. Raises CalledProcessError."""
    subprocess.run(words, check=True, capture_output=True)


def main(arguments: list[str]) -> None:
    """Have the day pass."""
    load = Load(PORT, int(arguments[1]))

    def tell(look: program.Look) -> None:
        print(json.dumps(asdict(look)), flush=True)

    program.run(Node(), load, float(arguments[0]), tell)
    print(json.dumps({"ended": load.ended, "faults": load.faults}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
