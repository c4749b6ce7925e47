# SPDX-License-Identifier: Apache-2.0
"""What a whole node looks like, and what of it is missing at a moment."""

import contextlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuwarden import names
from gpuwarden.control.snapshot import boottime_nanoseconds
from gpuwarden.simulator import places
from gpuwarden.simulator.cli import ask as ask_simulator
from tests.soak.random_kills import processes

CARDS = (0, 1)  # of the test node, each with a worker of the same number
SERVING = ("ready", "busy")
HOOKS = "medgemma-hook@"  # they come and go by themselves
SETTINGS = ("power_limit_watts", "sm_lock_mhz", "memory_lock_mhz", "vram_used_bytes")
SHARED_MEMORY = Path("/dev/shm")
BUS_SECONDS = 10.0
ASK_STATE = [
    *("busctl", "get-property", names.BUS_NAME, names.ROOT_OBJECT),
    *(f"{names.BUS_NAME}.Manager", "State"),
]

Snapshot = dict[str, Any]


@dataclass(frozen=True)
class Whole:
    """The node as it was before anything was killed.

    :ivar processes: how many by unit.
    :ivar settings: by card, as the simulator knows them.
    :ivar files: in /dev/shm.
    """

    processes: dict[str, int]
    settings: list[dict[str, Any]]
    files: list[str]


def whole() -> Whole:
    """The node as it is now."""
    units = {unit: len(pids) for unit, pids in our_processes().items()}
    return Whole(units, [settings_of(card) for card in cards()], shared_files())


def missing(before: Whole) -> str:
    """What is not yet as it was, in words; empty where everything is."""
    units = our_processes()
    counts = {unit: len(pids) for unit, pids in units.items()}
    if counts != before.processes:
        return f"the processes are {counts}, not {before.processes}"
    mains = {unit: processes.main_process(pids) for unit, pids in units.items()}
    return (
        missing_states(mains)
        or missing_workers(mains)
        or missing_on_cards(before, mains)
        or left_over(before)
        or missing_on_bus()
    )


def our_processes() -> dict[str, list[int]]:
    """The processes of each unit of ours, hooks apart."""
    found = processes.processes_by_unit()
    return {unit: pids for unit, pids in found.items() if not unit.startswith(HOOKS)}


def published(path: Path) -> Snapshot:
    """A snapshot; empty where there is none, or it is too old to be believed."""
    try:
        document: Snapshot = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    age_milliseconds = (boottime_nanoseconds() - document["boottime_nanoseconds"]) / 1e6
    return document if age_milliseconds <= document["valid_milliseconds"] else {}


def snapshot_files() -> dict[str, Path]:
    """Where each unit publishes that is told by its snapshot."""
    files = {
        names.GUARD_UNIT: names.GUARD_STATE_FILE,
        names.GATEWAY_UNIT: names.GATEWAY_STATE_FILE,
    }
    for card in CARDS:
        files[names.thermal_unit(card)] = names.thermal_snapshot_file(card)
        files[names.scan_unit(card)] = names.scan_snapshot_file(card)
    return files


def missing_states(mains: dict[str, int]) -> str:
    """Whether each that lives says so itself, and says that all is well."""
    for unit, path in snapshot_files().items():
        if unit in mains and published(path).get("pid") != mains[unit]:
            return f"{unit} (PID {mains[unit]}) has not published"
    for card in CARDS:
        state = published(names.thermal_snapshot_file(card))
        if state.get("data", {}).get("state") != "normal":
            return f"card {card} is {state.get('data', {}).get('state')}"
    guard = published(names.GUARD_STATE_FILE).get("data", {})
    return "" if guard.get("state") == "running" else f"the guard says {guard.get('reasons')}"


def missing_workers(mains: dict[str, int]) -> str:
    """Whether guard and gateway see the workers that there are."""
    guard = published(names.GUARD_STATE_FILE).get("data", {}).get("workers", [])
    gateway = published(names.GATEWAY_STATE_FILE).get("data", {})
    if gateway.get("failed") != 0:
        return f"{gateway.get('failed')} requests failed by the gateway's own books"
    serving = {
        each["number"]: each["pid"]
        for each in gateway.get("workers", [])
        if each["state"] in SERVING
    }
    known = {each["number"]: each["main_pid"] for each in guard}
    there = {card: mains[names.worker_unit(card)] for card in CARDS}
    if serving != there:
        return f"the gateway has the workers {serving}, not {there}"
    return "" if known == there else f"the guard knows the workers {known}, not {there}"


def missing_on_cards(before: Whole, mains: dict[str, int]) -> str:
    """Whether the cards hold what the living workers hold, and are set as they were."""
    for index, card in enumerate(cards()):
        owners = [context["pid"] for context in card["contexts"]]
        if owners != [mains[names.worker_unit(index)]]:
            return f"card {index} is held by {owners}"
        if settings_of(card) != before.settings[index]:
            return f"card {index} has {settings_of(card)}, not {before.settings[index]}"
    return ""


def left_over(before: Whole) -> str:
    """What nobody has cleared away."""
    if zombies := processes.zombies():
        return "; ".join(zombies)
    if strangers := processes.strangers():
        return "; ".join(strangers)
    files = shared_files()
    return "" if files == before.files else f"/dev/shm holds {files}, not {before.files}"


def missing_on_bus() -> str:
    """Whether the guard answers on the bus."""
    try:
        asked = subprocess.run(
            ASK_STATE, capture_output=True, text=True, check=False, timeout=BUS_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"the bus did not answer in {BUS_SECONDS:g} s"
    told = asked.stdout.strip() or asked.stderr.strip()
    return "" if told == 's "running"' else f"the bus says {told}"


def cards() -> list[dict[str, Any]]:
    """The cards as they are, whatever anybody of ours believes."""
    shown: list[dict[str, Any]] = ask_simulator(places.CONTROL_SOCKET, {"command": "show"})["cards"]
    return shown


def settings_of(card: dict[str, Any]) -> dict[str, Any]:
    """What an administrator has set on a card, and the memory in use."""
    return {name: card[name] for name in SETTINGS}


def shared_files() -> list[str]:
    """What lies in /dev/shm."""
    return sorted(file.name for file in SHARED_MEMORY.iterdir())


def shared_kib() -> int:
    """Memory of the whole node in files that no disk backs."""
    with contextlib.closing(Path("/proc/meminfo").open()) as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Shmem:"))
