# SPDX-License-Identifier: Apache-2.0
"""The thermal guard on a node: from heat to alert and back, through every fault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.node.vm import Node
from tests.soak import thermal
from tests.soak.thermal import ORIGINAL_WATTS, OVERRIDDEN_WATTS, THERMAL, card, override
from tests.system.service import main_pid, wait_for, wait_for_state

SEED = 1
CONFIG = "/etc/gpuwarden/conf.d/90-test.toml"
GATEWAY = "org.gpuwarden1 /org/gpuwarden1/gateway org.gpuwarden1.Gateway"


@pytest.fixture
def node(shared_node: Node) -> Node:
    """Cards are cool and whole again after each of these, but for those that kill and cut."""
    return shared_node


def snapshot(node: Node, gpu: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(node.run(f"cat /run/gpuwarden/thermal/{gpu}.json").text)
    return document


def wait_for_thermal_state(node: Node, gpu: int, wanted: str, timeout_seconds: float = 180) -> None:
    path = f"/run/gpuwarden/thermal/{gpu}.json"
    wait_for(node, f'grep -q \'"state":"{wanted}"\' {path}', timeout_seconds)


def events(node: Node, event: str, gpu: int = 0) -> list[dict[str, str]]:
    """The journal's entries of that event for that card."""
    command = f"journalctl -o json --no-pager GPUWARDEN_EVENT={event} GPU={gpu}"
    text = node.run(command, check=False).text  # none is no fault
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.long("tests/integration/test_thermal_guard.py")
def test_a_hot_card_is_held_said_and_given_back(node: Node) -> None:
    recoveries = snapshot(node, 0)["data"]["recoveries"]
    before = len(events(node, "thermal-state"))
    # It needn't be cool for half a minute, nor take as long to get warm: a hot inlet, a failed fan.
    node.run(f"mkdir -p {Path(CONFIG).parent}")
    node.put(b"[thermal]\nsafe_seconds = 3\n", CONFIG)
    node.run("systemctl reload medgemma-guard")
    node.run("gpuwarden-sim set --gpu 0 --ambient 60 --resistance-factor 1.6")
    node.run("gpuwarden-sim load --gpu 0 --fraction 1.0")

    wait_for_thermal_state(node, 0, "alert")
    wait_for(node, f"busctl get-property {GATEWAY} BatchLimits | grep -q '2 0 3 1 4'")
    held = card(node)["power_limit_watts"]
    assert 150 <= held < ORIGINAL_WATTS
    assert snapshot(node, 0)["data"]["original_power_limit_watts"] == ORIGINAL_WATTS
    assert main_pid(node, "medgemma-worker@0") > 0
    assert snapshot(node, 1)["data"]["state"] == "normal"
    changes = events(node, "thermal-state")[before:]
    change = [entry for entry in changes if entry["STATE_NEW"] == "alert"]
    assert change[0]["STATE_OLD"] == "normal"
    assert len(change[0]["MESSAGE_ID"]) == 32
    assert change[0]["GPU_UUID"] == snapshot(node, 0)["data"]["uuid"]
    assert float(change[0]["TEMPERATURE_CELSIUS"]) > 70
    wait_for(node, "journalctl --no-pager GPUWARDEN_EVENT=thermal-write GPU=0 | grep -q limit")

    node.run("gpuwarden-sim clear --gpu 0")
    thermal.wait_for_limit(node, ORIGINAL_WATTS)
    wait_for_thermal_state(node, 0, "normal")
    wait_for(node, f"busctl get-property {GATEWAY} BatchLimits | grep -q '2 0 4 1 4'")
    assert snapshot(node, 0)["data"]["recoveries"] == recoveries + 1
    assert node.run("gpuwarden thermal 0", check=False).status == 0
    node.run(f"rm {CONFIG}; systemctl reload medgemma-guard")


@pytest.mark.long("tests/integration/test_guard_heat.py")
def test_a_card_that_nothing_cools_has_its_workers_stopped_until_it_is_cool(node: Node) -> None:
    node.run("gpuwarden-sim set --gpu 0 --ambient 84")
    node.run("gpuwarden-sim load --gpu 0 --fraction 1.0")

    wait_for(node, "! systemctl is-active -q medgemma-worker@0", 240)
    assert snapshot(node, 0)["data"]["state"] == "critical"
    assert snapshot(node, 0)["data"]["admission"] == "paused"
    assert card(node)["power_limit_watts"] == 150
    assert node.run("systemctl is-active medgemma-worker@1").text == "active"
    assert events(node, "stop-requested")

    node.run("gpuwarden-sim clear --gpu 0")
    wait_for(node, "systemctl is-active -q medgemma-worker@0", 300)
    thermal.wait_for_limit(node, ORIGINAL_WATTS)


def test_kills_at_any_moment_leave_the_original(own_node: Node) -> None:
    figures = thermal.kills(own_node, 2, SEED)
    assert (figures.done, figures.faults) == (2, [])


def test_power_cuts_leave_the_original(own_node: Node) -> None:
    figures = thermal.power_cuts(own_node, 1, SEED)
    assert (figures.done, figures.faults) == (1, [])


def test_no_crash_of_the_disk_tears_the_originals(own_node: Node, tmp_path: Path) -> None:
    figures = thermal.crash_points(own_node, 2, tmp_path)
    assert figures.done > 10
    assert figures.faults == []


Fault = Callable[[Node], None]


def lost(node: Node) -> None:
    fault(node, "lost")
    wait_for_thermal_state(node, 0, "lost")


def hang(node: Node) -> None:
    fault(node, "hang")
    wait_for_thermal_state(node, 0, "blind")
    pid = main_pid(node, "medgemma-thermal@0")
    states = node.run(f"cat /proc/{pid}/task/*/stat").text
    assert any(line.rpartition(")")[2].split()[0] == "D" for line in states.splitlines())
    # The watchdog ends what it can; the next guard does not follow into the driver.
    told = f"its former guard .PID {pid}. hangs in the driver"
    wait_for(node, f"systemctl show -P StatusText medgemma-thermal@0 | grep -q '{told}'", 180)


def sensor_error(node: Node) -> None:
    fault(node, "sensor-error")
    wait_for_thermal_state(node, 0, "blind")
    thermal.wait_for_limit(node, OVERRIDDEN_WATTS)  # cooled as at alert
    assert events(node, "sensor-lost")


def no_permission(node: Node) -> None:
    fault(node, "no-permission")
    override(node)
    wait_for(node, reason_of("power-limit", "permission denied"))
    assert events(node, "thermal-refused")


def no_power_limit(node: Node) -> None:
    fault(node, "no-power-limit")
    override(node)
    wait_for(node, reason_of("power-limit", "not supported"))
    thermal.wait_for_card(node, r"sm_lock_mhz.: \[")


def external_limit(node: Node) -> None:
    fault(node, "external-limit=250")
    wait_for(node, "grep -q '\"original_power_limit_watts\":250.0' /run/gpuwarden/thermal/0.json")
    told = events(node, "thermal-outside-change")[0]["MESSAGE"]
    assert "300" in told
    assert "250" in told
    fault(node, "external-limit=300")
    wait_for(node, "grep -q '\"original_power_limit_watts\":300.0' /run/gpuwarden/thermal/0.json")


def xid(node: Node) -> None:
    fault(node, "xid=79")
    wait_for(node, "journalctl --no-pager GPUWARDEN_EVENT=xid GPU=0 | grep -q 79")


def fault(node: Node, kind: str) -> None:
    node.run(f"gpuwarden-sim fault --gpu 0 {kind}")


def reason_of(actuator: str, text: str) -> str:
    return f'grep -q \'"{actuator}":"[^"]*{text}\' /run/gpuwarden/thermal/0.json'


LONG = pytest.mark.long("tests/integration/test_thermal_guard.py")


@pytest.mark.parametrize(
    "break_card",
    [
        # What was refused is tried again after a minute: not one refusal right after the other.
        pytest.param(no_permission, marks=LONG),
        hang,
        lost,
        pytest.param(sensor_error, marks=LONG),
        pytest.param(xid, marks=LONG),
        pytest.param(external_limit, marks=LONG),
        pytest.param(no_power_limit, marks=LONG),
    ],
)
def test_a_broken_card_leaves_its_neighbour_alone(node: Node, break_card: Fault) -> None:
    break_card(node)
    after = snapshot(node, 1)
    assert node.run("systemctl show -P NRestarts medgemma-thermal@1").text == "0"
    assert after["data"]["state"] == "normal"
    wait_for(node, f"! grep -q '\"sequence\": {after['sequence']},' /run/gpuwarden/thermal/1.json")

    node.run("gpuwarden-sim clear --gpu 0")
    node.run(f"busctl call {THERMAL} ClearOverride")
    wait_for_thermal_state(node, 0, "normal")
    thermal.wait_for_limit(node, snapshot(node, 0)["data"]["original_power_limit_watts"])
    wait_for_state(node, "running")
