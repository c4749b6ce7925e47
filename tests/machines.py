# SPDX-License-Identifier: Apache-2.0
"""Machines to plan for: cards, sockets, cores and threads made to order."""

from pathlib import Path

from gpuwarden.control.states import Card, GatewayWorker
from gpuwarden.cpulist import format_cpu_list
from gpuwarden.topology.model import Topology


def card(index: int, node: int = 0, *, present: bool = True, minor: int | None = None) -> Card:
    return Card(
        index=index,
        uuid=f"GPU-0000000{index}",
        name="NVIDIA H200",
        pci_address=f"0000:{0x10 + index:02x}:00.0",
        minor=index if minor is None else minor,
        numa_node=node,
        present=present,
    )


def machine(nodes: int = 2, cores_per_node: int = 4, threads_per_core: int = 2) -> Topology:
    """CPUs numbered as Linux does: all first threads, then all second ones."""
    cores = nodes * cores_per_node
    siblings = {
        core + cores * thread: frozenset(core + cores * t for t in range(threads_per_core))
        for core in range(cores)
        for thread in range(threads_per_core)
    }
    node_cpus = {
        node: frozenset(cpu for cpu in siblings if cpu % cores // cores_per_node == node)
        for node in range(nodes)
    }
    return Topology(
        online_cpus=frozenset(siblings),
        node_cpus=node_cpus,
        memory_nodes=frozenset(range(nodes)),
        siblings=siblings,
        distances={a: {b: 10 if a == b else 20 for b in range(nodes)} for a in range(nodes)},
        sockets={cpu: node for node, cpus in node_cpus.items() for cpu in cpus},
    )


def write_sysfs(root: Path, topology: Topology, pci_nodes: dict[str, int]) -> None:
    """The part of /sys that describes ``topology``, with devices on nodes."""
    cpus, nodes = root / "devices/system/cpu", root / "devices/system/node"
    _write(cpus / "online", format_cpu_list(topology.online_cpus))
    for name in ("present", "possible"):
        _write(cpus / name, format_cpu_list(topology.online_cpus))
    for cpu, socket in topology.sockets.items():
        _write(cpus / f"cpu{cpu}/topology/physical_package_id", str(socket))
    for cpu, siblings in topology.siblings.items():
        _write(cpus / f"cpu{cpu}/topology/core_cpus_list", format_cpu_list(siblings))
    if topology.node_cpus:
        _write(nodes / "online", format_cpu_list(topology.node_cpus))
        _write(nodes / "has_memory", format_cpu_list(topology.memory_nodes))
    for node, members in topology.node_cpus.items():
        _write(nodes / f"node{node}/cpulist", format_cpu_list(members))
        distances = topology.distances[node]
        text = " ".join(str(distances[other]) for other in sorted(distances))
        _write(nodes / f"node{node}/distance", text)
    for address, node in pci_nodes.items():
        device = root / "bus/pci/devices" / address
        _write(device / "numa_node", str(node))
        local = topology.node_cpus.get(node, topology.online_cpus)
        _write(device / "local_cpulist", format_cpu_list(local))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="ascii")


def gateway_worker(number: int, **changes: object) -> GatewayWorker:
    """A connected worker that is ready and idle."""
    return GatewayWorker(
        number=number, pid=1000 + number, state="ready", outstanding=0, requests=1, failures=0
    ).model_copy(update=changes)
