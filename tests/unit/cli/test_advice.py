# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong, a command is named that helps, and that command exists."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from gpuwarden.bus.objects.publisher import INTERFACES
from gpuwarden.cli.advice import ADVICE_LIMIT, ANYTHING, advice
from gpuwarden.cli.main import parse
from gpuwarden.control.host import TuningData
from gpuwarden.control.states import Card, GuardData, PlanData, PlannedWorker
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.guard.status import Seen, summarise
from gpuwarden.nvml.vocabulary import RECOVERY_ACTIONS
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.unit.cli.samples import gateway, gpu, guard, orphan, worker

UNITS = Path(__file__).parents[3] / "packaging" / "systemd"


@pytest.mark.parametrize(
    ("changes", "live", "commands"),
    [
        ({}, True, []),
        ({"state": ServiceState.STARTING, "gateway": None}, True, []),
        (
            {},
            False,
            [
                "systemctl status medgemma-guard.service",
                "systemctl start medgemma-guard.service",
                "gpuwarden logs -n 50",
            ],
        ),
        ({"state": ServiceState.DEGRADED}, True, ["gpuwarden logs -n 50"]),
        ({"workers": [worker(3, state=WorkerState.STOPPED)]}, True, ["gpuwarden workers start 3"]),
        (
            {"workers": [worker(0, state=WorkerState.GHOST)]},
            True,
            ["gpuwarden logs --worker 0", "gpuwarden workers restart 0"],
        ),
        ({"workers": [worker(0, state=WorkerState.GHOST, operation="restarting")]}, True, []),
        ({"workers": [worker(0, outdated=True)]}, True, ["gpuwarden workers restart 0"]),
        (
            {
                "workers": [worker(0, state=WorkerState.DRAINING)],
                "gateway": gateway(drained=[0]),
            },
            True,
            ["gpuwarden workers start 0"],
        ),
        (
            {
                "state": ServiceState.DEGRADED,
                "reasons": ["jobs can't be kept: the bus of the disk fails"],
            },
            True,
            [
                "systemctl status medgemma-jobs-key.service",
                "gpuwarden logs --event job-store-refused",
            ],
        ),
        (
            {"workers": [worker(0, state=WorkerState.DRAINING)]},
            True,
            ["gpuwarden logs --worker 0 -f"],
        ),
        (
            {"gpus": [gpu(0, state=ThermalState.LOST), gpu(1, state=ThermalState.LOST)]},
            True,
            [
                "gpuwarden logs --gpu 0",
                "journalctl -k -g 'NVRM|Xid' -n 20",
                "gpuwarden logs --gpu 1",
            ],
        ),
        (
            {"gpus": [gpu(0, recovery_action="gpu-reset")]},
            True,
            ["gpuwarden thermal release 0 600"],
        ),
        ({"gateway": gateway(paused=True)}, True, []),
        (
            {"gateway": gateway(paused=True, paused_until=1)},
            True,
            ["busctl call org.gpuwarden1 /org/gpuwarden1/gateway org.gpuwarden1.Gateway Resume"],
        ),
        ({"orphans": [orphan(7)]}, True, ["gpuwarden orphans", "gpuwarden reap 7"]),
        ({"orphans": [orphan(7, orphan_class="desktop")]}, True, []),
        ({"scans": {0: "", 1: "blind"}}, True, ["gpuwarden logs --gpu 1"]),
    ],
)
def test_advice(changes: dict[str, object], live: bool, commands: list[str]) -> None:
    assert [command for command, _ in advice(guard(**changes), live=live)] == commands


@pytest.mark.parametrize(
    "reason",
    [
        "the former configuration is in use: /etc/gpuwarden/gpuwarden.toml:3: x",
        "the configuration does not fit this node: x",
    ],
)
def test_a_configuration_that_was_refused_and_mended_needs_a_reload_alone(reason: str) -> None:
    data = guard(state=ServiceState.DEGRADED, reasons=[reason])
    check, reload = "gpuwarden config check", "gpuwarden reload"
    assert [command for command, _ in advice(data, live=True)] == [check, reload]
    assert [command for command, _ in advice(data, live=True, is_mended=True)] == [reload]


def test_advice_is_short_however_much_is_wrong() -> None:
    data: GuardData = guard(workers=[worker(n, state=WorkerState.STUCK) for n in range(16)])
    assert len(advice(data, live=False)) == ADVICE_LIMIT


def test_what_needs_the_service_is_not_advised_without_it() -> None:
    for data in states():
        commands = [command for command, _ in advice(data, live=False)]
        assert not [each for each in commands if each.startswith(("gpuwarden workers", "busctl"))]


FAULTS = (
    "the former configuration is in use: /etc/gpuwarden/gpuwarden.toml:3: x",
    "the configuration does not fit this node: x",
    "127.0.0.1:7860 is held by python3 (PID 812): stop it",
    "the HTTP port can't be opened (systemctl status medgemma-gateway.socket)",
    "there is no placement plan",
    "the placement plan is stale: it is of another boot",
    "the kernel doesn't say which CPUs there are: x",
    "systemd says nothing, so what is known of the workers may be old: no answer in 5 s",
)
PLAN = PlanData(
    driver_version="580",
    simulated=False,
    housekeeping_cpus="0",
    cards=[
        Card(
            index=0,
            uuid="GPU-0",
            name="H200",
            pci_address="0000:11:00.0",
            minor=0,
            numa_node=0,
            present=True,
        )
    ],
    workers=[
        PlannedWorker(
            number=0,
            gpu_index=0,
            gpu_uuid="GPU-0",
            numa_node=0,
            cpus="1",
            memory_max_bytes=1,
            revised_monotonic_microseconds=5,
        )
    ],
)
UP = UnitFacts(active_state="active", main_pid=9, started_monotonic_microseconds=9)
UNITS_SEEN = (
    UP,
    UnitFacts(),
    UnitFacts(active_state="failed", result="oom-kill"),
    UnitFacts(active_state="activating", main_pid=9, started_monotonic_microseconds=9),
    UnitFacts(active_state="deactivating", main_pid=9, started_monotonic_microseconds=9),
)


def states() -> Iterator[GuardData]:
    """Every state that the supervisor can be in, one thing wrong at a time, and cards with it."""
    well = {"plan": PLAN, "units": {0: UP}, "thermal": {0: gpu(0)}, "gateway": gateway()}
    was_ready = frozenset({0})
    for fault in FAULTS:
        yield summarise(Seen("1", **well, faults=(fault,)))  # type: ignore[arg-type]  # a mixed bag
    for plan in (None, PLAN.model_copy(update={"reason": "no driver is loaded", "workers": []})):
        yield summarise(Seen("1", **well | {"plan": plan}))  # type: ignore[arg-type]  # likewise
    for unit, ready in product(UNITS_SEEN, (frozenset(), was_ready)):
        yield summarise(Seen("1", **well | {"units": {0: unit}}, was_ready=ready))  # type: ignore[arg-type]  # likewise
    for state, held in product(ThermalState, ("", "heat", "released")):
        card = {"thermal": {0: gpu(0, state=state, reason="x")}, "held": {0: held}}
        yield summarise(Seen("1", **well | card))  # type: ignore[arg-type]  # likewise
    yield summarise(Seen("1", **well | {"gateway": None}))  # type: ignore[arg-type]  # likewise
    yield summarise(Seen("1", **well | {"thermal": {}}))  # type: ignore[arg-type]  # likewise
    yield summarise(Seen("1", **well, strays=frozenset({7})))  # type: ignore[arg-type]  # likewise
    yield summarise(Seen("1", **well, tuning=TuningData(fault="no")))  # type: ignore[arg-type]  # likewise
    for worker_state in WorkerState:
        yield guard(workers=[worker(0, state=worker_state)])
    for action in RECOVERY_ACTIONS:
        yield guard(gpus=[gpu(0, recovery_action=action)])
    yield guard(orphans=[orphan(7)], scans={0: "x"}, gateway=gateway(paused=True, paused_until=1))


def test_every_reason_has_an_advice_of_its_own() -> None:
    for data in states():
        if data.state is ServiceState.DEGRADED:
            commands = advice(data, live=True)
            assert commands, data.reasons
            assert commands != [ANYTHING], f"no advice for: {data.reasons}"


def all_commands() -> list[str]:
    found = {
        command
        for data in states()
        for live in (True, False)
        for command, _ in advice(data, live=live)
    }
    assert len(found) > 20
    return sorted(found)


@pytest.mark.parametrize("command", all_commands())
def test_every_command_that_is_advised_exists(command: str) -> None:
    program, *words = shlex.split(command)
    match program:
        case "gpuwarden":
            parse(words)  # exits where it can't be understood
        case "systemctl":
            verb, *units = words
            assert verb in ("status", "start", "stop", "reboot")
            for unit in units:
                template = re.sub(r"@[\d]+\.", "@.", unit)
                assert (UNITS / template).exists(), unit
        case "journalctl":
            # Not what it finds: whether it understands its options.
            done = subprocess.run(
                [program, "--no-pager", *words, "-n", "0"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "option" not in done.stderr, done.stderr
        case "busctl":
            call, name, path, interface, method = words
            methods = {each.name: each for each in INTERFACES if each.name == interface}
            assert (call, name) == ("call", "org.gpuwarden1")
            assert path == "/org/gpuwarden1/gateway"
            assert method in {each.name for each in methods[interface].methods}
        case _:
            raise AssertionError(f"{program}: nobody has looked whether that exists")
