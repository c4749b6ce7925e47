# SPDX-License-Identifier: Apache-2.0
"""Records a node with a card in alert: python -m tests.system.record_hot_node [SECONDS].

A whole node: its service, its simulated cards, requests at its front door. What ``gpuwarden top``
shows of it is in tests and, as pictures, in the documentation.
"""

import json
import sys
import time
from dataclasses import asdict

from gpuwarden.cli.live.trail import Trail, longer
from gpuwarden.control.states import GuardData
from gpuwarden.values import ThermalState
from tests.node import levels
from tests.node.channel import Process
from tests.node.demo import ASK, ct_small
from tests.node.vm import Node
from tests.unit.cli.live.recording import RECORDING

SECONDS = 300.0
EVERY_SECONDS = 3.0
HALF_WAY = 0.5
LOOK_SECONDS = 60.0  # for one look on an emulated node
WARM = "gpuwarden-sim load --gpu 1 --fraction 0.4"
HOT = """
gpuwarden-sim set --gpu 0 --ambient 45 --resistance-factor 1.6
gpuwarden-sim load --gpu 0 --fraction 1.0
"""


def main() -> None:
    """Record, and write the file."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with levels.installed_node() as node:
        node.set_clock()
        node.put(ct_small(), "/tmp/ct.dcm")
        node.run(WARM)
        data, trail = watched(node, seconds)
    document = {
        "unix_seconds": time.time(),
        "status": data.model_dump(mode="json"),
        "trail": {index: [asdict(each) for each in samples] for index, samples in trail.items()},
    }
    RECORDING.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(RECORDING)


def watched(node: Node, seconds: float) -> tuple[GuardData, Trail]:
    """The last look, and the cards' figures over this time; half-way through, one gets hot."""
    looks = node.start(f"gpuwarden top --json --every {EVERY_SECONDS}")
    trail: Trail = {}
    began = time.monotonic()
    is_hot = False
    while True:
        data = look(looks)
        trail = longer(trail, data.gpus, time.time())
        passed = time.monotonic() - began
        if passed > seconds and data.gpus[0].state is ThermalState.ALERT:
            return data, trail
        if passed > HALF_WAY * seconds and not is_hot:
            is_hot = True
            node.run(HOT)
        node.run(ASK)


def look(looks: Process) -> GuardData:
    """The next line of ``gpuwarden top --json``."""
    line = looks.read_until(r"^\{.*\}$", LOOK_SECONDS)[0]
    return GuardData.model_validate_json(line)


if __name__ == "__main__":
    main()
