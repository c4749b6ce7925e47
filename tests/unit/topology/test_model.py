# SPDX-License-Identifier: Apache-2.0
from gpuwarden.topology.model import Bounds, Topology
from tests.machines import machine


def test_the_nearest_node_is_the_node_itself_where_it_will_do() -> None:
    assert machine(nodes=2).nearest(1, [0, 1]) == 1


def test_the_nearest_node_is_by_the_kernels_distance_and_then_the_lower_number() -> None:
    whole = machine(nodes=4)
    distances = {3: {0: 31, 1: 21, 2: 21, 3: 10}}
    far = Topology(
        whole.online_cpus, whole.node_cpus, whole.memory_nodes, whole.siblings, distances
    )
    assert far.nearest(3, [0, 1, 2]) == 1
    assert far.nearest(3, [0]) == 0


def test_there_is_nothing_near_an_unknown_node_or_among_none() -> None:
    assert machine().nearest(-1, [0, 1]) is None
    assert machine().nearest(9, [0, 1]) is None
    assert machine().nearest(0, []) is None


def test_bounds_take_away_cpus_siblings_and_memory() -> None:
    part = machine(2, 2, 2).restricted_to(Bounds(frozenset({0, 2, 3}), frozenset({1})))
    assert part.online_cpus == {0, 2, 3}
    assert part.node_cpus == {0: {0}, 1: {2, 3}}
    assert part.core_of(0) == {0}
    assert part.memory_nodes == {1}


def test_the_summary_is_the_same_for_the_same_machine_alone() -> None:
    assert machine(2, 2, 1).summary() == "node 0: CPUs 0-1; node 1: CPUs 2-3; memory on 0-1"
    bare = Topology(frozenset({0}), {0: frozenset({0}), 1: frozenset()}, frozenset(), {})
    assert bare.summary() == "node 0: CPUs 0; node 1: no CPU; memory on no node"
