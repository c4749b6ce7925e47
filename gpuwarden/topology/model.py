"""CPUs, cores and NUMA nodes as plain values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NO_NODE = -1  # the kernel's own word for "not known" (drivers/base/node.c)


@dataclass(frozen=True, slots=True)
class Topology:
    """What the kernel says of this node's CPUs and memory.

    :ivar online_cpus: CPUs that can run something now.
    :ivar node_cpus: the online CPUs of each NUMA node; empty for a node of memory alone.
    :ivar memory_nodes: NUMA nodes that have memory.
    :ivar siblings: for each online CPU, the online CPUs of its core, itself included.
    :ivar distances: for each NUMA node, its distance to every other (10 is itself).
    """

    online_cpus: frozenset[int]
    node_cpus: Mapping[int, frozenset[int]]
    memory_nodes: frozenset[int]
    siblings: Mapping[int, frozenset[int]]
    distances: Mapping[int, Mapping[int, int]] = field(default_factory=dict)

    def core_of(self, cpu: int) -> frozenset[int]:
        """The online CPUs that share ``cpu``'s core, itself included."""
        return self.siblings.get(cpu, frozenset({cpu}))

    def cores(self, cpus: frozenset[int]) -> list[frozenset[int]]:
        """``cpus`` by core, the core of the lowest CPU first."""
        return sorted({self.core_of(cpu) & cpus for cpu in cpus}, key=min)
