# SPDX-License-Identifier: Apache-2.0
"""Reads the topology from the kernel; the root is a parameter, so any machine can be tested."""

from pathlib import Path

from gpuwarden.cpulist import format_cpu_list, parse_cpu_list
from gpuwarden.topology.model import NO_NODE, Topology, summary_of

SYSFS = Path("/sys")
_CPUS = "devices/system/cpu"
_NODES = "devices/system/node"


def read_topology(root: Path = SYSFS) -> Topology:
    """CPUs, cores and nodes of this machine.

    :raises OSError: sysfs doesn't even list the online CPUs.
    :raises ValueError: the kernel's answer can't be read.
    """
    online = _online_cpus(root)
    node_cpus = _node_cpus(root, online)
    cpus = root / _CPUS
    return Topology(
        online_cpus=online,
        node_cpus=node_cpus,
        memory_nodes=_memory_nodes(root),
        siblings={cpu: _siblings(cpus / f"cpu{cpu}/topology", cpu) & online for cpu in online},
        distances={
            node: _distances(_text(root / _NODES / f"node{node}/distance"), sorted(node_cpus))
            for node in node_cpus
        },
        sockets=_sockets(cpus, online),
    )


def read_summary(root: Path = SYSFS) -> str:
    """:meth:`Topology.summary` of this machine, by a handful of files. Raises as read_topology."""
    return summary_of(_node_cpus(root, _online_cpus(root)), _memory_nodes(root))


def read_present_cpus(root: Path = SYSFS) -> frozenset[int]:
    """The CPUs that are in this machine, online or not. Raises as :func:`read_topology`."""
    return parse_cpu_list((root / _CPUS / "present").read_text(encoding="ascii"))


def read_possible_cpus(root: Path = SYSFS) -> frozenset[int]:
    """The CPUs that could ever be in this machine. Raises as :func:`read_topology`."""
    return parse_cpu_list((root / _CPUS / "possible").read_text(encoding="ascii"))


def read_online_cpus(root: Path = SYSFS) -> frozenset[int]:
    """The CPUs that can run something now. Raises as :func:`read_topology`."""
    return _online_cpus(root)


def pci_numa_node(address: str, root: Path = SYSFS) -> int:
    """The NUMA node of the PCI device, ``NO_NODE`` where the kernel doesn't know.

    :param address: in the kernel's form, ``0000:3b:00.0``.
    :raises ValueError: the kernel's answer is no number.
    """
    text = _text(_device(address, root) / "numa_node").strip()
    return max(int(text), NO_NODE) if text else NO_NODE


def pci_local_cpus(address: str, root: Path = SYSFS) -> str:
    """The CPUs that are near the PCI device, as a CPU list; empty where the kernel doesn't know.

    :raises CpuListError: the kernel's list can't be read.
    """
    return format_cpu_list(parse_cpu_list(_text(_device(address, root) / "local_cpulist")))


def _device(address: str, root: Path) -> Path:
    return root / "bus/pci/devices" / address


def _online_cpus(root: Path) -> frozenset[int]:
    return parse_cpu_list((root / _CPUS / "online").read_text(encoding="ascii"))


def _node_cpus(root: Path, online: frozenset[int]) -> dict[int, frozenset[int]]:
    """The online CPUs of each node; a kernel without NUMA has one node, by the number 0."""
    numbers = sorted(parse_cpu_list(_text(root / _NODES / "online")))
    if not numbers:
        return {0: online}
    return {
        node: parse_cpu_list(_text(root / _NODES / f"node{node}/cpulist")) & online
        for node in numbers
    }


def _memory_nodes(root: Path) -> frozenset[int]:
    return parse_cpu_list(_text(root / _NODES / "has_memory"))


def _siblings(folder: Path, cpu: int) -> frozenset[int]:
    # core_cpus_list is the name since 5.3; a kernel without either has one thread a core.
    for name in ("core_cpus_list", "thread_siblings_list"):
        cpus = parse_cpu_list(_text(folder / name))
        if cpu in cpus:
            return cpus
    return frozenset({cpu})


def _sockets(cpus: Path, online: frozenset[int]) -> dict[int, int]:
    said = {cpu: _text(cpus / f"cpu{cpu}/topology/physical_package_id").strip() for cpu in online}
    return {cpu: int(text) for cpu, text in said.items() if text and int(text) >= 0}


def _distances(text: str, numbers: list[int]) -> dict[int, int]:
    return dict(zip(numbers, (int(word) for word in text.split()), strict=False))


def _text(path: Path) -> str:
    """The file's text, empty where the kernel has no such file (no NUMA, no such device)."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
