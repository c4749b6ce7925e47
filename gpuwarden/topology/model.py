# SPDX-License-Identifier: Apache-2.0
"""CPUs, cores and NUMA nodes as plain values. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from gpuwarden.cpulist import format_cpu_list

NO_NODE = -1  # the kernel's own word for "not known" (drivers/base/node.c)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a cpuset leaves; None where it leaves everything.

    :ivar cpus: CPUs that may be used.
    :ivar memory_nodes: NUMA nodes whose memory may be used.
    """

    cpus: frozenset[int] | None = None
    memory_nodes: frozenset[int] | None = None

    def within(self, outer: "Bounds") -> "Bounds":
        """What both leave. An inner set that lies outside counts for nothing, as in the kernel."""
        return Bounds(
            _narrowed(outer.cpus, self.cpus), _narrowed(outer.memory_nodes, self.memory_nodes)
        )


EVERYTHING = Bounds()


@dataclass(frozen=True, slots=True)
class Topology:
    """What the kernel says of this node's CPUs and memory.

    :ivar online_cpus: CPUs that can run something now.
    :ivar node_cpus: the online CPUs of each NUMA node; empty for a node of memory alone.
    :ivar memory_nodes: NUMA nodes that have memory.
    :ivar siblings: for each online CPU, the online CPUs of its core, itself included.
    :ivar distances: for each NUMA node, its distance to every other (10 is itself).
    :ivar sockets: the socket of each online CPU, as far as it is known.
    """

    online_cpus: frozenset[int]
    node_cpus: Mapping[int, frozenset[int]]
    memory_nodes: frozenset[int]
    siblings: Mapping[int, frozenset[int]]
    distances: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    sockets: Mapping[int, int] = field(default_factory=dict)

    def core_of(self, cpu: int) -> frozenset[int]:
        """The online CPUs that share ``cpu``'s core, itself included."""
        return self.siblings.get(cpu, frozenset({cpu}))

    def cores(self, cpus: frozenset[int]) -> list[frozenset[int]]:
        """``cpus`` by core, the core of the lowest CPU first."""
        return sorted({self.core_of(cpu) & cpus for cpu in cpus}, key=min)

    def nearest(self, node: int, among: Collection[int]) -> int | None:
        """The one of ``among`` that is nearest to ``node``: itself, else by the kernel's distance.

        None where ``node`` is no node of this machine, or ``among`` is empty. Of two that are
        equally far, the lower number.
        """
        if node in among:
            return node
        distances = self.distances.get(node, {})
        known = [other for other in among if other in distances]
        return min(known, key=lambda other: (distances[other], other), default=None)

    def restricted_to(self, bounds: Bounds) -> "Topology":
        """The part of this machine that ``bounds`` leaves."""
        cpus = _narrowed(self.online_cpus, bounds.cpus) or self.online_cpus
        return replace(
            self,
            online_cpus=cpus,
            node_cpus={node: members & cpus for node, members in self.node_cpus.items()},
            memory_nodes=_narrowed(self.memory_nodes, bounds.memory_nodes) or frozenset(),
            siblings={cpu: self.core_of(cpu) & cpus for cpu in cpus},
        )

    def summary(self) -> str:
        """Nodes, CPUs and memory in one line: the same as long as a plan for it holds."""
        return summary_of(self.node_cpus, self.memory_nodes)


def summary_of(node_cpus: Mapping[int, frozenset[int]], memory_nodes: frozenset[int]) -> str:
    """``node 0: CPUs 0-1; node 1: CPUs 2-3; memory on 0-1``."""
    nodes = [
        f"node {node}: " + (f"CPUs {format_cpu_list(cpus)}" if cpus else "no CPU")
        for node, cpus in sorted(node_cpus.items())
    ]
    return "; ".join([*nodes, f"memory on {format_cpu_list(memory_nodes) or 'no node'}"])


def _narrowed(outer: frozenset[int] | None, inner: frozenset[int] | None) -> frozenset[int] | None:
    if outer is None or inner is None:
        return inner if outer is None else outer
    return outer & inner or outer
