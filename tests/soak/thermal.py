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
from tests.node.crash import DEVICE, LoggedDisk
from tests.node.vm import Node

GPU = 0
ORIGINAL_WATTS = 300.0  # of the node's simulated A100
OVERRIDDEN_WATTS = 210.0  # 70 % of it
UNIT = f"medgemma-thermal@{GPU}"
THERMAL = f"org.gpuwarden1 /org/gpuwarden1/gpu/{GPU} org.gpuwarden1.Thermal"
SNAPSHOT = f"/run/gpuwarden/thermal/{GPU}.json"
STORE = "/var/lib/gpuwarden/thermal"
LONGEST_DELAY_SECONDS = 2.5
DEADLINE_SECONDS = 120.0
TOLD_EACH = 10


@dataclass
class Figures:
    """What a campaign has seen.

    :ivar done: how often it was done, :ivar faults: what must not be, in words.
    """

    name: str
    done: int = 0
    faults: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def count(self) -> None:
        """One more is done; says so now and then, since these take long."""
        self.done += 1
        if self.done % TOLD_EACH == 0:
            print(f"{self.name}: {self.done}, faults {len(self.faults)}", file=sys.stderr)

    def __str__(self) -> str:
        faults = "; ".join(self.faults) or "none"
        slowest = f"{self.slowest_seconds:.1f}"
        return f"{self.name:<28} {self.done:>5}   {slowest:>8}   {faults}"


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
    """Wait until the simulated card shows that, as an extended regular expression."""
    node.run(
        f"until shown=$(gpuwarden-sim show --gpu {GPU} --json) || exit 9;"
        f" echo $shown | grep -Eq '{pattern}'; do sleep 0.2; done",
        timeout_seconds=DEADLINE_SECONDS,
    )


def wait_for_guard(node: Node, former_pid: int) -> None:
    """Wait until another process guards the card and has published."""
    node.run(
        f"until pid=$(systemctl show -P MainPID {UNIT}); [ $pid != 0 ] && [ $pid != {former_pid} ]"
        f" && grep -q '\"pid\": '$pid, {SNAPSHOT}; do sleep 0.2; done",
        timeout_seconds=DEADLINE_SECONDS,
    )


def kills(node: Node, count: int, seed: int) -> Figures:
    """SIGKILL the guard at random moments round its writes; the original must come back."""
    chance = random.Random(seed)
    figures = Figures("SIGKILL of the guard")
    for _ in range(count):
        pid = int(node.run(f"systemctl show -P MainPID {UNIT}").text)
        override(node)
        if chance.random() < 0.5:
            wait_for_limit(node, OVERRIDDEN_WATTS)
            clear(node)
        node.run(f"sleep {chance.uniform(0, LONGEST_DELAY_SECONDS):.3f}; kill -KILL {pid}")
        wait_for_guard(node, pid)
        held = card(node)["power_limit_watts"]
        if held > ORIGINAL_WATTS:
            figures.faults.append(f"{held:g} W, above the original, after kill {figures.done}")
        clear(node)
        took = wait_for_limit(node, ORIGINAL_WATTS)
        figures.slowest_seconds = max(figures.slowest_seconds, took)
        original = published(node)["original_power_limit_watts"]
        if original != ORIGINAL_WATTS:
            figures.faults.append(f"{original} W taken for the original after {figures.done}")
        figures.count()
    return figures


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
