# SPDX-License-Identifier: Apache-2.0
"""What holds for every plan, on whatever machine: sockets, nodes and cpusets at random."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.config import Configuration
from gpuwarden.control.states import Card, PlanData
from gpuwarden.cpulist import parse_cpu_list
from gpuwarden.placement.plan import Driver, Ground, make_plan
from gpuwarden.topology.model import Bounds, Topology
from tests.machines import card, machine

DRIVER = Driver("580.159.04", simulated=False)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """A machine with CPUs off, nodes without CPUs or memory, and distances of any kind."""
    whole = machine(draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 4)))
    online = draw(st.sets(st.sampled_from(sorted(whole.online_cpus)), min_size=1).map(frozenset))
    memory = draw(st.sets(st.sampled_from(sorted(whole.node_cpus))).map(frozenset))
    far = st.integers(11, 60)
    return Topology(
        online_cpus=online,
        node_cpus={node: cpus & online for node, cpus in whole.node_cpus.items()},
        memory_nodes=memory,
        siblings={cpu: whole.siblings[cpu] & online for cpu in online},
        distances={
            a: {b: 10 if a == b else draw(far) for b in whole.node_cpus} for a in whole.node_cpus
        },
    )


def bounds() -> st.SearchStrategy[Bounds]:
    some = st.none() | st.sets(st.integers(0, 60), min_size=1).map(frozenset)
    return st.builds(
        Bounds, some, st.none() | st.sets(st.integers(0, 4), min_size=1).map(frozenset)
    )


grounds = st.builds(Ground, topologies(), bounds(), bounds())
cards = st.lists(st.integers(-1, 4), max_size=6).map(
    lambda nodes: [card(index, node) for index, node in enumerate(nodes)]
)
configurations = st.builds(
    lambda workers, cpus, housekeeping, policy: Configuration.model_validate(
        {
            "workers": {"workers_per_gpu": workers, "cpus_per_worker": cpus},
            "placement": {"housekeeping_cpus": housekeeping, "memory_policy": policy},
        }
    ),
    st.integers(1, 6),
    st.integers(0, 8),
    st.sampled_from(["", "0", "0-3", "1,90", "0-95"]),
    st.sampled_from(["preferred", "bind", "none"]),
)


def sets_of(plan: PlanData) -> dict[int, frozenset[int]]:
    return {worker.number: parse_cpu_list(worker.cpus) for worker in plan.workers}


@given(grounds, cards, configurations)
def test_no_cpu_is_in_two_exclusive_sets(
    ground: Ground, cards: list[Card], configuration: Configuration
) -> None:
    plan = make_plan(cards, ground, configuration, DRIVER)
    sets = sets_of(plan)
    housekeeping = parse_cpu_list(plan.housekeeping_cpus)
    for worker in plan.workers:
        if worker.has_own_cpus:
            mine = sets[worker.number]
            assert not mine & housekeeping
            for number, cpus in sets.items():
                assert number == worker.number or (cpus and not cpus & mine)


@given(grounds, cards, configurations)
def test_every_worker_on_a_known_node_has_at_least_one_cpu_that_it_may_use(
    ground: Ground, cards: list[Card], configuration: Configuration
) -> None:
    plan = make_plan(cards, ground, configuration, DRIVER)
    assert len(plan.workers) == len(cards) * configuration.workers.workers_per_gpu
    usable = parse_cpu_list(plan.worker_cpus)
    assert usable <= ground.machine.online_cpus
    for worker in plan.workers:
        known = cards[worker.gpu_index].numa_node in ground.machine.node_cpus
        cpus = parse_cpu_list(worker.cpus)
        assert bool(cpus) == known
        assert cpus <= usable
        if cpus:
            assert cpus <= ground.machine.node_cpus[worker.numa_node]
        else:
            assert worker.numa_node == -1
            assert worker.memory_policy == "none"


@given(grounds, cards, configurations)
def test_housekeeping_is_never_empty(
    ground: Ground, cards: list[Card], configuration: Configuration
) -> None:
    plan = make_plan(cards, ground, configuration, DRIVER)
    housekeeping = parse_cpu_list(plan.housekeeping_cpus)
    assert housekeeping
    assert housekeeping <= ground.machine.online_cpus
    for worker in plan.workers:
        usable = ground.machine.node_cpus.get(worker.numa_node, frozenset())
        usable &= parse_cpu_list(plan.worker_cpus)
        if usable - housekeeping:
            assert not parse_cpu_list(worker.cpus) & housekeeping
        elif worker.cpus:
            assert any("share them with the system" in text for text in plan.warnings)


@given(grounds, cards, configurations, st.randoms(use_true_random=False))
def test_the_order_of_the_input_is_irrelevant(
    ground: Ground, cards: list[Card], configuration: Configuration, random: object
) -> None:
    shuffled = list(cards)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    whole = ground.machine
    turned = replace(
        whole,
        node_cpus=dict(reversed(list(whole.node_cpus.items()))),
        siblings=dict(reversed(list(whole.siblings.items()))),
        distances=dict(reversed(list(whole.distances.items()))),
    )
    plan = make_plan(cards, ground, configuration, DRIVER)
    assert make_plan(shuffled, replace(ground, machine=turned), configuration, DRIVER) == plan


@given(grounds, cards, configurations)
def test_memory_is_of_a_node_that_has_some_and_may_be_used(
    ground: Ground, cards: list[Card], configuration: Configuration
) -> None:
    plan = make_plan(cards, ground, configuration, DRIVER)
    for worker in plan.workers:
        if worker.memory_policy == "none":
            assert worker.memory_node == -1
        else:
            assert worker.memory_policy == configuration.placement.memory_policy
            assert worker.memory_node in ground.machine.memory_nodes


@given(grounds, cards, configurations)
def test_siblings_that_may_be_used_stay_together(
    ground: Ground, cards: list[Card], configuration: Configuration
) -> None:
    plan = make_plan(cards, ground, configuration, DRIVER)
    mine = parse_cpu_list(plan.worker_cpus) - parse_cpu_list(plan.housekeeping_cpus)
    for worker in plan.workers:
        cpus = parse_cpu_list(worker.cpus)
        if cpus & mine:
            core = frozenset().union(*(ground.machine.core_of(cpu) for cpu in cpus))
            assert core & mine & ground.machine.node_cpus[worker.numa_node] <= cpus
