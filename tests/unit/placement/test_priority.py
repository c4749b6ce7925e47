# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.placement.priority import LEAST_CPUS, has_own_cpus, plan_priorities

sets = st.frozensets(st.integers(0, 11), max_size=5)
pinned = st.dictionaries(st.integers(0, 7), sets, max_size=6)
wishes = st.sampled_from(["normal", "fifo:1", "fifo:10", "fifo:99"])


@given(wishes, pinned, sets)
def test_a_cpu_with_a_real_time_thread_is_one_workers_alone(
    wanted: str, pins: dict[int, frozenset[int]], housekeeping: frozenset[int]
) -> None:
    planned = plan_priorities(wanted, pins, housekeeping, [])
    assert planned.keys() == pins.keys()
    for number, priority in planned.items():
        if priority == "normal":
            continue
        assert priority == wanted
        assert len(pins[number]) >= LEAST_CPUS
        assert not pins[number] & housekeeping
        assert not any(pins[number] & cpus for other, cpus in pins.items() if other != number)


@given(wishes, pinned, sets)
def test_whoever_gets_less_than_was_wanted_is_named_with_the_reason(
    wanted: str, pins: dict[int, frozenset[int]], housekeeping: frozenset[int]
) -> None:
    warnings = ["said before"]
    planned = plan_priorities(wanted, pins, housekeeping, warnings)
    assert warnings.pop(0) == "said before"
    denied = {number for number, priority in planned.items() if priority != wanted}
    named = [
        int(n) for text in warnings for n in text.split(" compute")[0].split(" ", 1)[1].split(", ")
    ]
    assert sorted(named) == sorted(denied)
    assert all(f"not at {wanted}" in text for text in warnings)


@given(wishes, pinned, sets)
def test_two_own_cpus_are_enough(
    wanted: str, pins: dict[int, frozenset[int]], housekeeping: frozenset[int]
) -> None:
    planned = plan_priorities(wanted, pins, housekeeping, [])
    for number, cpus in pins.items():
        if has_own_cpus(number, pins, housekeeping) and len(cpus) >= LEAST_CPUS:
            assert planned[number] == wanted


@given(wishes, pinned, sets, st.randoms(use_true_random=False))
def test_the_order_of_the_workers_is_irrelevant(
    wanted: str, pins: dict[int, frozenset[int]], housekeeping: frozenset[int], random: object
) -> None:
    shuffled = list(pins.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    said: list[str] = []
    said_again: list[str] = []
    planned = plan_priorities(wanted, pins, housekeeping, said)
    assert plan_priorities(wanted, dict(shuffled), housekeeping, said_again) == planned
    assert said_again == said


def test_each_reason_is_said_once_for_all_that_it_holds_for() -> None:
    pins = {0: frozenset({1}), 1: frozenset({2, 3})}
    pins |= {4: frozenset({4, 5}), 5: frozenset({4, 5}), 6: frozenset({0, 6})}
    warnings: list[str] = []
    planned = plan_priorities("fifo:10", pins, frozenset({0}), warnings)
    assert [number for number, priority in planned.items() if priority == "fifo:10"] == [1]
    assert warnings == [
        "worker 0 computes at normal priority, not at fifo:10: "
        "CPU 1 is its only one, and the rest of it needs one, too",
        "workers 4, 5 compute at normal priority, not at fifo:10: "
        "CPUs 4-5 are not a single worker's own",
        "worker 6 computes at normal priority, not at fifo:10: "
        "CPUs 0,6 are not a single worker's own",
    ]


def test_a_worker_without_a_pin_leaves_nobody_cpus_of_their_own() -> None:
    pins = {0: frozenset({2, 3}), 1: frozenset[int]()}
    warnings: list[str] = []
    assert set(plan_priorities("fifo:10", pins, frozenset({0}), warnings).values()) == {"normal"}
    assert warnings == [
        "worker 0 computes at normal priority, not at fifo:10: "
        "CPUs 2-3 are not a single worker's own",
        "worker 1 computes at normal priority, not at fifo:10: "
        "whoever is not pinned would take CPUs from everybody else",
    ]
