# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from gpuwarden.topology.model import NO_NODE
from gpuwarden.topology.sysfs import (
    pci_local_cpus,
    pci_numa_node,
    read_online_cpus,
    read_possible_cpus,
    read_present_cpus,
    read_summary,
    read_topology,
)
from tests.machines import machine, write_sysfs

ADDRESS = "0000:3b:00.0"


def test_a_machine_of_two_sockets_is_read_as_it_is(tmp_path: Path) -> None:
    built = machine(nodes=2, cores_per_node=3, threads_per_core=2)
    write_sysfs(tmp_path, built, {})
    assert read_topology(tmp_path) == built


def test_offline_cpus_belong_to_no_node_and_no_core(tmp_path: Path) -> None:
    write_sysfs(tmp_path, machine(nodes=1, cores_per_node=2, threads_per_core=2), {})
    (tmp_path / "devices/system/cpu/online").write_text("0-2\n")
    topology = read_topology(tmp_path)
    assert topology.node_cpus == {0: frozenset({0, 1, 2})}
    assert topology.core_of(1) == {1}


def test_a_kernel_without_numa_is_one_node_whose_memory_is_no_choice(tmp_path: Path) -> None:
    cpus = tmp_path / "devices/system/cpu"
    cpus.mkdir(parents=True)
    (cpus / "online").write_text("0-1\n")
    topology = read_topology(tmp_path)
    assert topology.online_cpus == {0, 1}
    assert topology.node_cpus == {0: {0, 1}}
    assert topology.memory_nodes == frozenset()
    assert topology.cores(topology.online_cpus) == [{0}, {1}]


def test_a_device_is_on_the_node_that_the_kernel_names(tmp_path: Path) -> None:
    write_sysfs(tmp_path, machine(), {ADDRESS: 1})
    assert pci_numa_node(ADDRESS, tmp_path) == 1
    assert pci_local_cpus(ADDRESS, tmp_path) == "4-7,12-15"


def test_a_device_that_is_unknown_or_nowhere_has_no_node(tmp_path: Path) -> None:
    write_sysfs(tmp_path, machine(), {ADDRESS: -1})
    assert pci_numa_node(ADDRESS, tmp_path) == NO_NODE
    assert pci_numa_node("0000:99:00.0", tmp_path) == NO_NODE
    assert pci_local_cpus("0000:99:00.0", tmp_path) == ""


def test_the_summary_read_alone_is_that_of_the_whole(tmp_path: Path) -> None:
    write_sysfs(tmp_path, machine(), {})
    assert read_summary(tmp_path) == read_topology(tmp_path).summary() == machine().summary()
    (tmp_path / "devices/system/cpu/online").write_text("0-14\n")
    assert read_summary(tmp_path) == read_topology(tmp_path).summary() != machine().summary()


def test_present_online_and_possible_cpus_are_told_apart(tmp_path: Path) -> None:
    write_sysfs(tmp_path, machine(1, 2, 1), {})
    cpus = tmp_path / "devices/system/cpu"
    (cpus / "possible").write_text("0-7\n")
    (cpus / "online").write_text("0\n")
    assert read_possible_cpus(tmp_path) == set(range(8))
    assert read_present_cpus(tmp_path) == {0, 1}
    assert read_online_cpus(tmp_path) == {0}


def test_this_machine_can_be_read() -> None:
    topology = read_topology()
    assert topology.online_cpus
    for cpu in topology.online_cpus:
        assert cpu in topology.core_of(cpu)
