# SPDX-License-Identifier: Apache-2.0
"""Who holds a card's memory, on a node: workers, strangers, hidden ones, and cards out of sight."""

import json
from typing import Any

import pytest

from tests.node.vm import Node
from tests.system.service import main_pid, wait_for, wait_for_state


def scan(node: Node, gpu: int = 0) -> dict[str, Any]:
    """What the card's scan has published."""
    document: dict[str, Any] = json.loads(node.run(f"cat /run/gpuwarden/scan/{gpu}.json").text)
    data: dict[str, Any] = document["data"]
    return data


def wait_for_scan(node: Node, pattern: str, gpu: int = 0) -> dict[str, Any]:
    wait_for(node, f"grep -q '{pattern}' /run/gpuwarden/scan/{gpu}.json")
    return scan(node, gpu)


def hold(node: Node, unit: str, *options: str, environment: str = "") -> None:
    """A program of somebody else's with memory of card 0."""
    setting = f"--setenv={environment}" if environment else ""
    command = f"gpuwarden-sim hold --gpu 0 --bytes 1G {' '.join(options)}"
    node.run(f"systemd-run --quiet --collect --unit={unit} {setting} {command}")


def of_unit(data: dict[str, Any], unit: str) -> dict[str, Any]:
    (found,) = [each for each in data["holders"] if each["unit"] == f"{unit}.service"]
    holder: dict[str, Any] = found
    return holder


@pytest.mark.long("tests/integration/test_scan.py")
def test_who_holds_a_cards_memory_is_known(node: Node) -> None:
    data = wait_for_scan(node, '"holder_class":"ours"')
    worker = of_unit(data, "medgemma-worker@0")
    assert (worker["pid"], worker["worker"]) == (main_pid(node, "medgemma-worker@0"), 0)
    assert worker["vram_bytes"] == 2 * 2**30
    assert (data["problem"], data["unexplained_bytes"]) == ("", 0)
    strangers_are_told_apart(node)
    a_card_that_hangs_is_blind(node)
    a_released_card_is_let_go_of_by_all(node)


def strangers_are_told_apart(node: Node) -> None:
    hold(node, "outsider")
    data = wait_for_scan(node, '"unit":"outsider.service"')
    assert of_unit(data, "outsider")["holder_class"] == "foreign"
    # A worker's process that has left the worker's unit.
    tagged = "GPUWARDEN_WORKER=0"
    hold(node, "left", "--user gpuwarden-worker", environment=tagged)
    hold(node, "copied", environment=tagged)  # root has copied a worker's environment
    wait_for_scan(node, '"unit":"copied.service"')
    data = wait_for_scan(node, '"unit":"left.service"')
    assert of_unit(data, "left")["holder_class"] == "ours-dead"
    assert of_unit(data, "left")["worker"] == 0
    assert of_unit(data, "copied")["holder_class"] == "foreign"
    node.run("systemctl stop outsider left copied")
    hold(node, "hidden", "--unlisted")
    data = wait_for_scan(node, '"holder_class":"hidden"')
    found = of_unit(data, "hidden")
    assert (found["listed"], found["mappings"], found["vram_bytes"]) == (False, True, None)
    node.run("systemctl stop hidden")
    wait_for_scan(node, '"holders":.{"pid":[0-9]*,[^}]*}],')  # the worker alone again
    told = node.run("journalctl -o cat --no-pager GPUWARDEN_EVENT=scan-hidden GPU=0").text
    assert "hidden.service" in told


def a_card_that_hangs_is_blind(node: Node) -> None:
    """Nobody is classified meanwhile, and the next life does not follow into the driver."""
    former = main_pid(node, "medgemma-scan@1")
    node.run("gpuwarden-sim fault --gpu 1 hang")
    data = wait_for_scan(node, '"state":"blind"', gpu=1)
    assert (data["holders"], data["vram_used_bytes"]) == ([], None)
    assert "has not answered" in data["problem"]
    assert scan(node)["state"] == "scanning"
    node.run("systemctl restart --no-block medgemma-scan@1")
    wait_for_scan(node, f"its former process (PID {former}) hangs", gpu=1)
    node.run("gpuwarden-sim clear --gpu 1")
    wait_for_scan(node, '"state":"scanning"', gpu=1)
    assert node.run("systemctl show -P NRestarts medgemma-scan@0").text == "0"
    wait_for_state(node, "running")


def a_released_card_is_let_go_of_by_all(node: Node) -> None:
    node.run("systemctl stop medgemma-worker@0", timeout_seconds=120)
    node.run("gpuwarden thermal release 0 600")
    # When the command has returned, both have closed the card.
    assert scan(node)["state"] == "released"
    node.run('grep -q \'"state":"released"\' /run/gpuwarden/thermal/0.json')
    node.run("gpuwarden thermal clear-override 0")
    wait_for_scan(node, '"state":"scanning"')
    node.run("systemctl stop medgemma-guard", timeout_seconds=120)
    units = "medgemma-scan@0 medgemma-scan@1 medgemma-thermal@0 medgemma-thermal@1"
    states = node.run(f"systemctl is-active {units}", check=False).text.split()
    assert states == ["inactive", "inactive", "active", "active"]
