# SPDX-License-Identifier: Apache-2.0
from gpuwarden.placement.locate import locate
from gpuwarden.topology.model import NO_NODE
from tests.machines import machine

TWO_NODES = machine(nodes=2, cores_per_node=2, threads_per_core=1)
ONE_NODE = machine(nodes=1, cores_per_node=2, threads_per_core=1)


def test_the_kernels_word_counts_whatever_the_driver_says() -> None:
    found = locate(0, frozenset({2, 3}), TWO_NODES)
    assert (found.node, found.source, found.note) == (0, "kernel", "")


def test_where_the_kernel_does_not_know_the_drivers_cpus_do() -> None:
    found = locate(NO_NODE, frozenset({2, 3}), TWO_NODES)
    assert (found.node, found.source) == (1, "driver")
    assert found.note == (
        "the kernel names no NUMA node for it; the driver calls CPUs 2-3 near: node 1"
    )


def test_cpus_that_are_not_online_say_nothing() -> None:
    assert locate(NO_NODE, frozenset({3, 40}), TWO_NODES).node == 1
    assert locate(NO_NODE, frozenset({40}), TWO_NODES).source == "unknown"


def test_a_machine_of_one_node_leaves_no_choice() -> None:
    found = locate(NO_NODE, frozenset(), ONE_NODE)
    assert (found.node, found.source) == (0, "only-node")
    assert "node 0 alone, so it is there" in found.note


def test_what_nobody_knows_is_not_guessed() -> None:
    silent = locate(NO_NODE, frozenset(), TWO_NODES)
    assert (silent.node, silent.source) == (NO_NODE, "unknown")
    assert "nor does the driver" in silent.note
    everywhere = locate(NO_NODE, frozenset({0, 1, 2, 3}), TWO_NODES)
    assert (everywhere.node, everywhere.source) == (NO_NODE, "unknown")
    assert "of nodes 0-1" in everywhere.note
