# SPDX-License-Identifier: Apache-2.0
"""Where workers run, read from the kernel: equal to the plan, on each kind of node."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.node import levels
from tests.node.hardware import TWO_CARDS, Card, Hardware
from tests.node.vm import Node
from tests.system.service import main_pid, wait_for

FIRST, SECOND = "0000:41:00.0", "0000:81:00.0"
# The host bridge: a PCI device that the kernel puts on no NUMA node.
HOMELESS = "0000:00:00.0"
OWN_CONFIG = "/etc/gpuwarden/conf.d/60-test.toml"
# Of each process of each worker: unit, whether it is the main one, CPUs, memory nodes, policy.
READ_KERNEL = """
for unit in $(systemctl list-units --plain --no-legend 'medgemma-worker@*' | cut -d' ' -f1); do
  main=$(systemctl show -P MainPID $unit); group=$(systemctl show -P ControlGroup $unit)
  for pid in $(cat /sys/fs/cgroup$group/cgroup.procs); do
    echo $unit $([ $pid = $main ] && echo main || echo child) \\
      $(sed -n 's/^Cpus_allowed_list:\\t//p; s/^Mems_allowed_list:\\t//p' /proc/$pid/status) \\
      $(head -1 /proc/$pid/numa_maps | cut -d' ' -f2)
  done
done
"""
# Without any cpuset on the node there are no such files.
HOST_CPUS = (
    "for s in system user; do cat /sys/fs/cgroup/$s.slice/cpuset.cpus.effective 2>/dev/null ||"
    " cat /sys/devices/system/cpu/online; done"
)
EXCLUSIVE = """\
[placement]
housekeeping_cpus = "0,2"
housekeeping_exclusive = true
memory_policy = "bind"
"""


@dataclass(frozen=True)
class Seen:
    """Where a process may run, by the kernel; ``policy`` is that of its memory."""

    cpus: str
    memory_nodes: str
    policy: str


def in_kernel(node: Node) -> dict[int, tuple[Seen, set[Seen]]]:
    """By worker: its main process, and what else is in it: its preprocessing."""
    workers: dict[int, tuple[Seen, set[Seen]]] = {}
    children: dict[int, set[Seen]] = {}
    for line in node.run(READ_KERNEL, timeout_seconds=60).text.splitlines():
        unit, kind, *rest = line.split()
        number, seen = int(unit.split("@")[1].split(".")[0]), Seen(*rest)
        if kind == "main":
            workers[number] = (seen, children.setdefault(number, set()))
        else:
            children.setdefault(number, set()).add(seen)
    return workers


def plan_of(node: Node) -> dict[str, Any]:
    answer = node.run("gpuwarden placement --json").text
    plan: dict[str, Any] = json.loads(answer)["plan"]
    return plan


def planned(worker: dict[str, Any], all_cpus: str, all_nodes: str) -> Seen:
    """What the kernel must say of a worker; only bind takes memory nodes away."""
    policy = {"preferred": "prefer:{}", "bind": "bind:{}", "none": "default"}
    return Seen(
        worker["cpus"] or all_cpus,
        str(worker["memory_node"]) if worker["memory_policy"] == "bind" else all_nodes,
        policy[worker["memory_policy"]].format(worker["memory_node"]),
    )


def assert_as_planned(node: Node, all_cpus: str, all_nodes: str) -> dict[str, Any]:
    plan = plan_of(node)
    found = in_kernel(node)
    assert found.keys() == {worker["number"] for worker in plan["workers"]}
    for worker in plan["workers"]:
        main, children = found[worker["number"]]
        assert main == planned(worker, all_cpus, all_nodes)
        assert children == {main}, "preprocessing runs elsewhere"
    return plan


@contextlib.contextmanager
def node_with_cards(
    *cards: dict[str, str], hardware: Hardware = levels.DEFAULT_HARDWARE
) -> Iterator[Node]:
    """A node with these simulated cards, the service running."""
    common, chosen = levels.machine(), levels.machine(hardware=hardware)
    level = levels.unstarted_level(common, levels.debs())
    opened = levels.continued if chosen == common else levels.rebooted
    with opened(chosen, level) as node:
        node.put(json.dumps({"cards": cards}).encode(), "/etc/gpuwarden-simulator/cards.json")
        levels.start_service(node, levels.DEFAULT_CONFIG)
        yield node


@pytest.mark.long("tests/unit/placement/test_locate.py")
def test_a_card_that_the_kernel_cannot_place_has_its_worker_where_its_driver_says(
    nodes: Callable[..., Node],
) -> None:
    node = nodes(
        node_with_cards,
        {"preset": "A100", "pci_address": HOMELESS, "near_cpus": "2-3"},
        {"preset": "A100", "pci_address": "0000:00:01.0"},
    )

    plan = assert_as_planned(node, "0-3", "0-1")

    assert [card["numa_node_from"] for card in plan["cards"]] == ["driver", "unknown"]
    assert [worker["cpus"] for worker in plan["workers"]] == ["2-3", ""]
    shown = node.run("gpuwarden placement").text
    assert "the driver calls CPUs 2-3 near: node 1" in " ".join(shown.split())
    assert "worker 1 is not pinned" in shown
    assert "on no known NUMA node" in shown


@pytest.mark.long("tests/unit/placement/test_service.py")
def test_a_machine_of_one_node_and_two_cpus_shares_what_it_has(nodes: Callable[..., Node]) -> None:
    homeless = Card(0x1E, None)
    node = nodes(
        node_with_cards,
        {"preset": "A100", "pci_address": FIRST},
        {"preset": "A100", "pci_address": homeless.address},
        hardware=Hardware(processors=2, numa_nodes=1, cards=(TWO_CARDS[0], homeless)),
    )
    shown = node.run(f"nproc; cat /sys/bus/pci/devices/{homeless.address}/numa_node")
    assert shown.text.split() == ["2", "-1"], "the hardware is not as asked"

    plan = assert_as_planned(node, "0-1", "0")

    assert [card["numa_node_from"] for card in plan["cards"]] == ["kernel", "only-node"]
    assert [worker["cpus"] for worker in plan["workers"]] == ["1", "1"]
    assert not any(worker["has_own_cpus"] for worker in plan["workers"])
    assert any("1 free core for 2 workers" in text for text in plan["warnings"])


@pytest.mark.long("tests/integration/test_guard_placement.py")
def test_workers_run_as_planned_and_a_new_plan_leaves_them_alone_until_their_restart(
    node: Node,
) -> None:
    former = assert_as_planned(node, "0-3", "0-1")
    assert [worker["cpus"] for worker in former["workers"]] == ["1", "2-3"]
    assert_mistakes_change_nothing(node, former)
    pids = [main_pid(node, f"medgemma-worker@{number}") for number in (0, 1)]
    before = in_kernel(node)

    node.put(EXCLUSIVE.encode(), OWN_CONFIG)
    dry = node.run("runuser -u alice -- gpuwarden placement --dry-run").text
    assert "/run/systemd/system/system.slice.d/50-gpuwarden-housekeeping.conf (new)" in dry
    assert "AllowedMemoryNodes=1" in dry
    assert plan_of(node) == former
    answer = json.loads(node.run("gpuwarden reload --json", timeout_seconds=120).text)
    assert answer["restart"] == [0, 1]
    assert [main_pid(node, f"medgemma-worker@{number}") for number in (0, 1)] == pids
    assert in_kernel(node) == before
    assert host_cpus(node) == ["0,2", "0,2"]
    wait_for(node, "journalctl -o cat GPUWARDEN_EVENT=worker-outdated | grep -q 'worker 1 runs'")

    node.run("systemctl restart medgemma-worker@0 medgemma-worker@1", timeout_seconds=240)
    wait_for(node, "! gpuwarden placement | grep -q 'before a restart'")
    assert_as_planned(node, "0-3", "0-1")
    assert_all_is_undone_with_the_unit_and_with_the_package(node)


def assert_mistakes_change_nothing(node: Node, plan: dict[str, Any]) -> None:
    for mistake in ("0-3,2", "0,9", "0-3"):
        node.put(f'[placement]\nhousekeeping_cpus = "{mistake}"\n'.encode(), OWN_CONFIG)
        refused = node.run("gpuwarden config check; gpuwarden reload", check=False)
        assert refused.status == 1
        assert refused.text.count("placement.housekeeping_cpus: found") == 2
    assert plan_of(node) == plan


def assert_all_is_undone_with_the_unit_and_with_the_package(node: Node) -> None:
    node.run("systemctl stop medgemma-guard", timeout_seconds=240)
    wait_for(node, f'[ "$({HOST_CPUS})" = "$(printf "0-3\\n0-3")" ]')
    node.run("systemctl start medgemma-numa", timeout_seconds=60)
    assert host_cpus(node) == ["0,2", "0,2"]
    refused = node.run(
        "echo 0 > /sys/devices/system/cpu/cpu3/online; systemctl start medgemma-worker@0;"
        "systemctl status medgemma-worker@0",
        check=False,
        timeout_seconds=120,
    )
    assert "the placement plan is stale: it was made for node 0: CPUs 0-1; node 1" in refused.text
    node.run("dpkg --remove gpuwarden-simulator gpuwarden", timeout_seconds=300)
    assert host_cpus(node) == ["0-2", "0-2"]
    assert node.run("find /run/systemd/system -name '*gpuwarden*'").text == ""


def host_cpus(node: Node) -> list[str]:
    """The CPUs of the system's own services and of its users."""
    return node.run(HOST_CPUS).text.split()
