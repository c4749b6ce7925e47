# SPDX-License-Identifier: Apache-2.0
"""On which NUMA node a card sits, from those who may know. Pure."""

from dataclasses import dataclass

from gpuwarden.control.states import NodeSource
from gpuwarden.cpulist import format_cpu_list
from gpuwarden.topology.model import NO_NODE, Topology


@dataclass(frozen=True, slots=True)
class Located:
    """A card's node, who knew it, and in words what was decided where the kernel didn't."""

    node: int
    source: NodeSource
    note: str = ""


def locate(kernel_node: int, affinity: frozenset[int], topology: Topology) -> Located:
    """The kernel's word, else the only node there is, else the node of the CPUs the driver names.

    Never a guess: a card that nobody can place is on no node.

    :param kernel_node: the PCI device's numa_node; ``NO_NODE`` on many a single socket, virtual
        machine or faulty BIOS.
    :param affinity: the CPUs that the driver calls near the card; empty where it names none.
    """
    if kernel_node != NO_NODE:
        return Located(kernel_node, "kernel")
    unsaid = "the kernel names no NUMA node for it"
    populated = sorted(node for node, cpus in topology.node_cpus.items() if cpus)
    if len(populated) == 1:
        return Located(
            populated[0],
            "only-node",
            f"{unsaid}; this machine has CPUs on node {populated[0]} alone, so it is there",
        )
    near = affinity & topology.online_cpus
    if not near:
        return Located(NO_NODE, "unknown", f"{unsaid}, nor does the driver name CPUs near it")
    named = format_cpu_list(near)
    nodes = [node for node in populated if topology.node_cpus[node] & near]
    if len(nodes) == 1:
        return Located(
            nodes[0], "driver", f"{unsaid}; the driver calls CPUs {named} near: node {nodes[0]}"
        )
    over = format_cpu_list(nodes)
    return Located(
        NO_NODE, "unknown", f"{unsaid}, and the driver calls CPUs {named} near, of nodes {over}"
    )
