# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.config import Configuration
from gpuwarden.control.states import Card, PlanData
from gpuwarden.cpulist import parse_cpu_list
from gpuwarden.placement.plan import Driver, make_plan
from gpuwarden.topology.model import Topology
from tests.machines import card, machine

DRIVER = Driver("580.159.04", simulated=False)


def configuration(
    workers_per_gpu: int = 1, cpus_per_worker: int = 0, housekeeping: str = ""
) -> Configuration:
    return Configuration.model_validate(
        {
            "workers": {"workers_per_gpu": workers_per_gpu, "cpus_per_worker": cpus_per_worker},
            "placement": {"housekeeping_cpus": housekeeping},
        }
    )


def plan_of(
    cards: list[Card], topology: Topology, settings: Configuration | None = None
) -> PlanData:
    return make_plan(cards, topology, settings or configuration(), DRIVER)


def cpus_of(plan: PlanData) -> dict[int, str]:
    return {worker.number: worker.cpus for worker in plan.workers}


machines = st.builds(machine, st.integers(1, 4), st.integers(1, 8), st.integers(1, 2))
card_nodes = st.lists(st.integers(-1, 4), max_size=8)
settings = st.builds(
    configuration, st.integers(1, 5), st.integers(0, 12), st.sampled_from(["", "0", "0-1", "3,99"])
)


@given(machines, card_nodes, settings)
def test_every_worker_has_a_cpu_of_its_cards_node_or_is_not_pinned(
    topology: Topology, nodes: list[int], chosen: Configuration
) -> None:
    plan = plan_of([card(i, node) for i, node in enumerate(nodes)], topology, chosen)
    assert len(plan.workers) == len(nodes) * chosen.workers.workers_per_gpu
    for worker in plan.workers:
        node = nodes[worker.gpu_index]
        cpus = parse_cpu_list(worker.cpus)
        if node in topology.node_cpus:
            assert cpus
            assert cpus <= topology.node_cpus[node]
            assert worker.numa_node == node
        else:
            assert not cpus
            assert worker.numa_node == -1


@given(machines, card_nodes, settings)
def test_no_cpu_is_in_two_exclusive_sets(
    topology: Topology, nodes: list[int], chosen: Configuration
) -> None:
    plan = plan_of([card(i, node) for i, node in enumerate(nodes)], topology, chosen)
    for node in topology.node_cpus:
        workers = [parse_cpu_list(w.cpus) for w in plan.workers if w.numa_node == node]
        if sum(map(len, workers)) != len(frozenset().union(*workers)):
            assert any(f"NUMA node {node}" in text and "share" in text for text in plan.warnings)


@given(machines, card_nodes, settings)
def test_housekeeping_is_never_empty_and_free_of_workers_where_the_node_has_more(
    topology: Topology, nodes: list[int], chosen: Configuration
) -> None:
    plan = plan_of([card(i, node) for i, node in enumerate(nodes)], topology, chosen)
    housekeeping = parse_cpu_list(plan.housekeeping_cpus)
    assert housekeeping
    assert housekeeping <= topology.online_cpus
    for worker in plan.workers:
        if worker.cpus and topology.node_cpus[worker.numa_node] - housekeeping:
            assert not parse_cpu_list(worker.cpus) & housekeeping


@given(machines, card_nodes, st.integers(1, 5), st.integers(0, 12))
def test_siblings_of_a_core_stay_together(
    topology: Topology, nodes: list[int], workers_per_gpu: int, cpus_per_worker: int
) -> None:
    chosen = configuration(workers_per_gpu, cpus_per_worker)
    plan = plan_of([card(i, node) for i, node in enumerate(nodes)], topology, chosen)
    for worker in plan.workers:
        cpus = parse_cpu_list(worker.cpus)
        assert all(topology.core_of(cpu) <= cpus for cpu in cpus)


@given(machines, card_nodes, st.integers(1, 5))
def test_workers_of_one_node_share_it_fairly(
    topology: Topology, nodes: list[int], workers_per_gpu: int
) -> None:
    cards = [card(i, node) for i, node in enumerate(nodes)]
    plan = plan_of(cards, topology, configuration(workers_per_gpu))
    for node, members in topology.node_cpus.items():
        cores = [
            len(topology.cores(parse_cpu_list(w.cpus))) for w in plan.workers if w.numa_node == node
        ]
        if cores:
            assert max(cores) - min(cores) <= 1
            free = members - parse_cpu_list(plan.housekeeping_cpus) or members
            used = frozenset().union(
                *(parse_cpu_list(w.cpus) for w in plan.workers if w.numa_node == node)
            )
            assert used == free


@given(machines, card_nodes, settings, st.randoms(use_true_random=False))
def test_the_order_of_the_cards_is_irrelevant(
    topology: Topology, nodes: list[int], chosen: Configuration, random: object
) -> None:
    cards = [card(i, node) for i, node in enumerate(nodes)]
    shuffled = list(cards)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    assert plan_of(shuffled, topology, chosen) == plan_of(cards, topology, chosen)


def test_two_nodes_of_two_cores_leave_the_first_cpu_to_the_system() -> None:
    topology = machine(nodes=2, cores_per_node=2, threads_per_core=1)
    plan = plan_of([card(0, 0), card(1, 1)], topology)
    assert plan.housekeeping_cpus == "0"
    assert cpus_of(plan) == {0: "1", 1: "2-3"}
    assert [worker.inference_priority for worker in plan.workers] == ["normal", "fifo:10"]
    assert plan.warnings == []
    assert plan.notes == [
        "worker 0 computes at normal priority, not at fifo:10: "
        "CPU 1 is its only one, and the rest of it needs one, too"
    ]


def test_a_node_of_one_core_is_shared_with_the_system_and_says_so() -> None:
    plan = plan_of([card(0, 0)], machine(nodes=1, cores_per_node=1, threads_per_core=2))
    assert cpus_of(plan) == {0: "0-1"}
    assert any("share them with the system" in text for text in plan.warnings)


def test_more_workers_than_cores_share_all_of_them_and_say_so() -> None:
    topology = machine(nodes=1, cores_per_node=3, threads_per_core=1)
    plan = plan_of([card(0, 0)], topology, configuration(workers_per_gpu=5))
    assert set(cpus_of(plan).values()) == {"1-2"}
    assert any("2 free cores for 5 workers" in text for text in plan.warnings)


def test_workers_on_one_node_get_whole_cores_side_by_side() -> None:
    topology = machine(nodes=1, cores_per_node=5, threads_per_core=2)
    plan = plan_of([card(0, 0)], topology, configuration(workers_per_gpu=2))
    assert plan.housekeeping_cpus == "0,5"
    assert cpus_of(plan) == {0: "1-2,6-7", 1: "3-4,8-9"}


def test_cpus_per_worker_bounds_the_share() -> None:
    topology = machine(nodes=1, cores_per_node=9, threads_per_core=2)
    plan = plan_of([card(0, 0)], topology, configuration(cpus_per_worker=4))
    assert len(parse_cpu_list(cpus_of(plan)[0])) == 4


def test_cpus_per_worker_beyond_the_share_is_a_warning() -> None:
    topology = machine(nodes=1, cores_per_node=3, threads_per_core=1)
    plan = plan_of([card(0, 0)], topology, configuration(cpus_per_worker=16))
    assert cpus_of(plan) == {0: "1-2"}
    assert any("not the 16 of cpus_per_worker" in text for text in plan.warnings)


def test_housekeeping_cpus_that_are_not_there_are_named() -> None:
    plan = plan_of([card(0, 0)], machine(nodes=1), configuration(housekeeping="1,40-41"))
    assert plan.housekeeping_cpus == "1"
    assert any("40-41" in text for text in plan.warnings)


def test_a_card_on_no_known_node_has_workers_without_a_pin() -> None:
    plan = plan_of([card(0, -1)], machine())
    assert cpus_of(plan) == {0: ""}
    assert any("not pinned" in text for text in plan.warnings)


def test_a_missing_card_keeps_its_index_and_has_no_worker() -> None:
    cards = [card(0, 0, present=False), card(1, 1)]
    plan = plan_of(cards, machine(), configuration(workers_per_gpu=2))
    assert [worker.number for worker in plan.workers] == [2, 3]
    assert [c.index for c in plan.cards] == [0, 1]
    assert any("GPU 0" in text and "not there" in text for text in plan.warnings)
    assert plan.reason == ""


def test_without_a_driver_the_reason_is_the_drivers() -> None:
    driver = Driver(None, simulated=False, reason="the NVIDIA kernel driver is not loaded")
    plan = make_plan([], machine(), configuration(), driver)
    assert plan.workers == []
    assert plan.reason == "the NVIDIA kernel driver is not loaded"


def test_without_cards_the_reason_says_where_to_look() -> None:
    assert "lspci" in plan_of([], machine()).reason
    assert "nvidia-smi -L" in plan_of([card(0, 0, present=False)], machine()).reason
