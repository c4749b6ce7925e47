"""Reads the topology from the kernel; the root is a parameter, so any machine can be tested."""

from pathlib import Path

from gpuwarden.cpulist import format_cpu_list, parse_cpu_list
from gpuwarden.topology.model import NO_NODE, Topology

SYSFS = Path("/sys")


def read_topology(root: Path = SYSFS) -> Topology:
    """CPUs, cores and nodes of this machine.

    :raises OSError: sysfs doesn't even list the online CPUs.
    :raises CpuListError: the kernel's list can't be read.
    """
    cpus = root / "devices/system/cpu"
    nodes = root / "devices/system/node"
    online = parse_cpu_list((cpus / "online").read_text(encoding="ascii"))
    numbers = sorted(parse_cpu_list(_text(nodes / "online")))
    return Topology(
        online_cpus=online,
        node_cpus={
            node: parse_cpu_list(_text(nodes / f"node{node}/cpulist")) & online for node in numbers
        },
        memory_nodes=parse_cpu_list(_text(nodes / "has_memory")),
        siblings={cpu: _siblings(cpus / f"cpu{cpu}/topology", cpu) & online for cpu in online},
        distances={
            node: _distances(_text(nodes / f"node{node}/distance"), numbers) for node in numbers
        },
    )


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


def _siblings(folder: Path, cpu: int) -> frozenset[int]:
    # core_cpus_list is the name since 5.3; a kernel without either has one thread a core.
    for name in ("core_cpus_list", "thread_siblings_list"):
        cpus = parse_cpu_list(_text(folder / name))
        if cpu in cpus:
            return cpus
    return frozenset({cpu})


def _distances(text: str, numbers: list[int]) -> dict[int, int]:
    return dict(zip(numbers, (int(word) for word in text.split()), strict=False))


def _text(path: Path) -> str:
    """The file's text, empty where the kernel has no such file (no NUMA, no such device)."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
