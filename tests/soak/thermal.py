# SPDX-License-Identifier: Apache-2.0
"""The thermal guard's long campaigns on a node: kills, power cuts, every crash of its disk.

Each begins with a cool card at its original limit. An override makes the guard write to the card at
once, so that the moments that matter come often.
"""

import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwarden.thermal.originals import Here
from gpuwarden.thermal.originals_store import OriginalsStore, Places
from tests.node.channel import NodeError, Process
from tests.node.crash import DEVICE, LoggedDisk
from tests.node.vm import Node

GPU = 0
ORIGINAL_WATTS = 300.0  # of the node's simulated A100
OVERRIDDEN_WATTS = 210.0  # 70 % of it
UNIT = f"medgemma-thermal@{GPU}"
THERMAL = f"org.gpuwarden1 /org/gpuwarden1/gpu/{GPU} org.gpuwarden1.Thermal"
SNAPSHOT = f"/run/gpuwarden/thermal/{GPU}.json"
STORE = "/var/lib/gpuwarden/thermal"
KILLER = Path(__file__).with_name("kills_in_node.py")
KILLER_PATH = "/run/kills_in_node.py"
LIBRARIES = "PYTHONPATH=/usr/lib/gpuwarden/app:/usr/lib/gpuwarden/vendor"
ROUND_SECONDS = 1800.0  # five waits of a round, each with its own deadline
LONGEST_DELAY_SECONDS = 2.5
DEADLINE_SECONDS = 120.0
TOLD_EACH = 10


# One interpreter that asks again and again: each start of one takes an emulated node a second.
LOOK = """
import json, re, socket, sys, time
while True:
    with socket.socket(socket.AF_UNIX) as simulator:
        simulator.connect("/run/gpuwarden-sim/control.sock")
        simulator.sendall(b'{"command": "show"}\\n')
        card = json.loads(simulator.makefile("rb").readline())["cards"][int(sys.argv[1])]
    if re.search(sys.argv[2], json.dumps(card)):
        break
    time.sleep(0.2)
"""


@dataclass
class Figures:
    """What a campaign has seen.

    :ivar done: how often it was done, :ivar faults: what must not be, in words.
    :ivar late: those of the faults that are about time alone: a slow moment of the machine does
        that, too.
    """

    name: str
    done: int = 0
    faults: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def count(self) -> None:
        """One more is done; says so now and then, since these take long."""
        self.done += 1
        if self.done % TOLD_EACH == 0:
            print(f"{self.name}: {self.done}, faults {len(self.faults)}", file=sys.stderr)

    def add_late(self, fault: str) -> None:
        """One more fault, about time alone."""
        self.faults.append(fault)
        self.late.append(fault)

    def __str__(self) -> str:
        faults = "; ".join(self.faults) or "none"
        slowest = f"{self.slowest_seconds:.1f}"
        return f"{self.name:<52} {self.done:>5}   {slowest:>8}   {faults}"


def override(node: Node, seconds: int = 3600) -> None:
    """Have the card cooled as at alert."""
    node.run(f"busctl call {THERMAL} Override su alert {seconds}")


def clear(node: Node) -> None:
    """End the override."""
    node.run(f"busctl call {THERMAL} ClearOverride")


def card(node: Node) -> dict[str, Any]:
    """The simulated card as it is, whatever our guard believes."""
    answer = json.loads(node.run(f"gpuwarden-sim show --gpu {GPU} --json").text)
    shown: dict[str, Any] = answer["cards"][0]
    return shown


def published(node: Node) -> dict[str, Any]:
    """The guard's snapshot."""
    data: dict[str, Any] = json.loads(node.run(f"cat {SNAPSHOT}").text)["data"]
    return data


def wait_for_limit(node: Node, watts: float) -> float:
    """Wait until the card itself has that limit; the seconds it took."""
    started = time.monotonic()
    pattern = f"power_limit_watts.: {watts:g}(\\.0*)?,"
    wait_for_card(node, pattern)
    return time.monotonic() - started


def wait_for_card(node: Node, pattern: str) -> None:
    """Wait until the simulated card shows that, as a regular expression over its JSON."""
    node.run(["python3", "-ISc", LOOK, str(GPU), pattern], timeout_seconds=DEADLINE_SECONDS)


def wait_for_guard(node: Node, former_pid: int) -> None:
    """Wait until another process guards the card and has published."""
    node.run(
        f"until pid=$(systemctl show -P MainPID {UNIT}); [ $pid != 0 ] && [ $pid != {former_pid} ]"
        f" && grep -q '\"pid\": '$pid, {SNAPSHOT}; do sleep 0.2; done",
        timeout_seconds=DEADLINE_SECONDS,
    )


def kills(node: Node, count: int, seed: int, cards: int = 2) -> Figures:
    """SIGKILL the guards at random moments round their writes; the originals must come back.

    All cards' guards at once, in equal shares; the slowest round is counted whole, from the order
    that makes the guard write to the original's return.
    """
    figures = Figures("SIGKILL of the guard")
    node.put(KILLER, KILLER_PATH)
    if cards != 2:
        have_cards(node, cards)
    shares = [(count + gpu) // cards for gpu in range(cards)]
    killers = [
        node.start(f"{LIBRARIES} exec python3 {KILLER_PATH} {gpu} {share} {seed + gpu}")
        for gpu, share in enumerate(shares)
    ]
    for killer, share in zip(killers, shares, strict=True):
        for _ in range(share):
            round_ = json.loads(next_line(killer))
            figures.slowest_seconds = max(figures.slowest_seconds, round_["took"])
            if round_["fault"]:
                figures.faults.append(f"{round_['fault']} after kill {figures.done}")
            figures.count()
    return figures


def next_line(killer: Process) -> bytes:
    """What it tells next. Raises NodeError with its last words where it has ended instead."""
    try:
        return killer.read_until(r"^\{.*\}$", timeout_seconds=ROUND_SECONDS)[0]
    except NodeError as error:
        raise NodeError(f"{error}\n{killer.stderr.decode(errors='replace')}") from error


def have_cards(node: Node, count: int) -> None:
    """Another number of simulated cards, and their thermal guards alone: nothing else is killed."""
    cards = [{"preset": "A100", "pci_address": f"0000:{0x41 + n:x}:00.0"} for n in range(count)]
    node.run("systemctl stop medgemma-guard medgemma-thermal.target gpuwarden-sim")
    node.run("rm /var/lib/gpuwarden/cards.json")
    node.put(json.dumps({"cards": cards}).encode(), "/etc/gpuwarden-simulator/cards.json")
    node.run(
        "systemctl start gpuwarden-sim && systemctl restart medgemma-numa"
        " && systemctl start medgemma-thermal.target",
        timeout_seconds=DEADLINE_SECONDS,
    )
    for gpu in range(count):
        node.run(
            f'until grep -q \'"state":"normal"\' /run/gpuwarden/thermal/{gpu}.json;'
            " do sleep 0.5; done",
            timeout_seconds=DEADLINE_SECONDS,
        )


def power_cuts(node: Node, count: int, seed: int) -> Figures:
    """Cut the node's power while the guard holds its card back; ours is never the original."""
    chance = random.Random(seed)
    figures = Figures("power cuts")
    for _ in range(count):
        override(node)
        node.run(f"sleep {chance.uniform(0, LONGEST_DELAY_SECONDS):.3f}")
        node.power_cut()
        node.power_on()
        node.run("systemctl start medgemma-guard", timeout_seconds=DEADLINE_SECONDS)
        wait_for_guard(node, 0)
        node.run(
            f"until grep -q '\"original_power_limit_watts\":[0-9]' {SNAPSHOT}; do sleep 0.2; done",
            timeout_seconds=DEADLINE_SECONDS,
        )
        took = wait_for_limit(node, ORIGINAL_WATTS)
        figures.slowest_seconds = max(figures.slowest_seconds, took)
        original = published(node)["original_power_limit_watts"]
        if original != ORIGINAL_WATTS:
            figures.faults.append(f"{original} W taken for the original after cut {figures.done}")
        node.run(
            f"until busctl get-property {THERMAL} State; do sleep 0.5; done",
            timeout_seconds=DEADLINE_SECONDS,
        )
        figures.count()
    return figures


def crash_points(node: Node, rounds: int, folder: Path) -> Figures:
    """Put the guard's state on a disk whose writes are recorded; read every crash of it."""
    figures = Figures("replayed crash points")
    disk = LoggedDisk(node)
    uuid = published(node)["uuid"]
    pid = int(node.run(f"systemctl show -P MainPID {UNIT}").text)
    # The guard's own namespace keeps the mount that it began with: mount it before it starts.
    node.run(f"systemctl stop {UNIT}; mount {DEVICE} {STORE}; systemctl start {UNIT}")
    wait_for_guard(node, pid)
    for _ in range(rounds):
        override(node)
        wait_for_limit(node, OVERRIDDEN_WATTS)
        clear(node)
        wait_for_limit(node, ORIGINAL_WATTS)
    node.power_cut()
    for point in disk.crash_points():
        figures.done += 1
        content = point.read(f"/{uuid}.json")
        if content is None:
            continue  # nothing of ours was on the card then
        place = folder / f"point-{point.number}"
        place.mkdir()
        (place / f"{uuid}.json").write_bytes(content)
        found = OriginalsStore(uuid, Places(disk=place, run=place / "none")).load(
            Here(uuid, "another boot", "")
        )
        if found.record is None or found.notes:
            figures.faults.append(f"torn at {point.number}: {found.notes}")
        elif found.record.original_milliwatts not in (None, ORIGINAL_WATTS * 1000):
            figures.faults.append(f"{found.record} at {point.number}")
    return figures
