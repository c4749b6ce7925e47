# SPDX-License-Identifier: Apache-2.0
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.control.states import ThermalData
from gpuwarden.values import ThermalState
from tests.integration.simulated_cards import ADDRESSES, SimulatedNode, build_library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("simulated-nvml"))


@pytest.fixture
def node(tmp_path: Path, library: Path) -> Iterator[SimulatedNode]:
    simulated = SimulatedNode(tmp_path, library)
    with simulated.powered():
        yield simulated


def is_normal(data: ThermalData) -> bool:
    return data.state is ThermalState.NORMAL


def test_the_plan_names_the_cards_where_the_kernel_has_them(node: SimulatedNode) -> None:
    plan = node.place()
    assert plan.simulated
    assert plan.driver_version
    assert [(c.index, c.name, c.pci_address, c.numa_node) for c in plan.cards] == [
        (0, "NVIDIA H200", ADDRESSES[0], 0),
        (1, "Tesla T4", ADDRESSES[1], 1),
    ]
    assert [(w.number, w.numa_node, w.cpus) for w in plan.workers] == [(0, 0, "1"), (1, 1, "2-3")]
    assert [w.gpu_uuid for w in plan.workers] == [c.uuid for c in plan.cards]


def test_a_card_that_the_kernel_cannot_place_is_placed_by_its_drivers_affinity(
    tmp_path: Path, library: Path
) -> None:
    node = SimulatedNode(tmp_path, library)
    node.configure_cards(
        {"preset": "H200", "pci_address": ADDRESSES[0], "near_cpus": "0-3"},
        {"preset": "T4", "pci_address": ADDRESSES[1], "near_cpus": "2-3"},
    )
    for address in ADDRESSES:
        node.forget_node_of(address)
    with node.powered():
        plan = node.place()
    assert [(c.numa_node, c.numa_node_from) for c in plan.cards] == [(-1, "unknown"), (1, "driver")]
    assert [w.cpus for w in plan.workers] == ["", "2-3"]
    assert "the driver calls CPUs 0-3 near, of nodes 0-1" in plan.notes[0]


def test_a_guard_publishes_what_the_card_reads(node: SimulatedNode) -> None:
    plan = node.place()
    with node.guarded(0), node.guarded(1):
        big, small = node.thermal(0, is_normal), node.thermal(1, is_normal)
    assert (big.uuid, big.numa_node, big.name) == (plan.cards[0].uuid, 0, "NVIDIA H200")
    assert big.temperature_celsius is not None
    assert 20 < big.temperature_celsius < 60
    assert big.memory_temperature_celsius is not None
    assert big.power_limit_watts == 700
    assert (big.alert_celsius, big.critical_celsius, big.safe_celsius) == (78, 85, 72)
    assert big.vram_total_bytes == 150754820096
    assert big.recovery_action == "none"
    assert small.memory_temperature_celsius is None
    assert small.power_limit_watts == 70


def test_a_card_that_heats_up_is_seen_to(node: SimulatedNode) -> None:
    node.place()
    with node.guarded(0):
        cold = node.thermal(0, is_normal)
        node.ask(command="load", gpu=0, fraction=1.0)
        hot = node.thermal(0, lambda data: (data.power_watts or 0) > 500)
    assert hot.temperature_celsius is not None
    assert cold.temperature_celsius is not None
    assert hot.temperature_celsius > cold.temperature_celsius


@pytest.mark.parametrize(
    ("fault", "state"),
    [("sensor-error", ThermalState.BLIND), ("lost", ThermalState.LOST)],
)
def test_a_fault_is_published_with_its_cause_and_the_neighbour_goes_on(
    node: SimulatedNode, fault: str, state: ThermalState
) -> None:
    node.place()
    node.configure('[thermal]\npolicy = "stepped"\nsafe_seconds = 1\n')  # soon back to normal
    with node.guarded(0), node.guarded(1):
        node.thermal(0, is_normal)
        before = node.thermal(1, is_normal)
        node.ask(command="fault", gpu=0, kind=fault, value=None)
        data = node.thermal(0, lambda data: data.state is state)
        assert "nvml" in data.reason
        assert data.temperature_celsius is None
        node.ask(command="clear", gpu=0)
        node.thermal(0, is_normal)
        assert node.thermal(1, is_normal).since == before.since


def test_a_card_gone_at_boot_keeps_its_index_and_is_guarded_as_lost(node: SimulatedNode) -> None:
    before = node.place()
    node.ask(command="fault", gpu=0, kind="lost", value=None)
    plan = node.place()
    assert [(c.index, c.uuid, c.present) for c in plan.cards] == [
        (0, before.cards[0].uuid, False),
        (1, before.cards[1].uuid, True),
    ]
    assert [w.number for w in plan.workers] == [1]
    with node.guarded(0):
        node.thermal(0, lambda data: data.state is ThermalState.LOST)


def test_without_a_driver_the_plan_says_so_and_the_guard_is_blind(
    tmp_path: Path, library: Path
) -> None:
    node = SimulatedNode(tmp_path, library)
    plan = node.place()
    assert plan.workers == []
    assert "the NVIDIA kernel driver is not loaded" in plan.reason
    with node.powered():
        node.place()
    with node.guarded(0):
        data = node.thermal(0, lambda data: "not loaded" in data.reason)
    assert data.state is ThermalState.BLIND


def test_a_bad_configuration_does_not_stop_the_guard(node: SimulatedNode) -> None:
    node.place()
    node.configure("[thermal]\nsample_hertz = -1\n")
    with node.guarded(0):
        data = node.thermal(0, is_normal)
    assert data.reason == "the configuration was refused, the defaults hold"


def test_a_guard_stays_within_its_memory(node: SimulatedNode) -> None:
    node.place()
    with node.guarded(0) as process:
        node.thermal(0, is_normal)
        status = Path(f"/proc/{process.pid}/status").read_text()
    anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    assert int(anonymous.split()[1]) < 40 * 1024


def test_the_guards_publication_is_a_snapshot_of_the_contract(node: SimulatedNode) -> None:
    node.place()
    with node.guarded(0) as process:
        node.thermal(0, is_normal)
        document = json.loads((node.root / "thermal-0.json").read_text())
    assert document["schema"] == 1
    assert document["component"] == "thermal@0"
    assert document["pid"] == process.pid != os.getpid()
    assert document["valid_milliseconds"] == 3000
