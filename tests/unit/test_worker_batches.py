# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.batches import BatchTable

KEY = (1, 7)


def test_a_batch_runs_when_all_its_members_are_prepared() -> None:
    table = BatchTable()
    table.add(KEY, 1, 2)
    table.prepared(KEY, 1)
    assert table.take() is None
    table.add(KEY, 2, 2)
    assert table.take() is None
    table.prepared(KEY, 2)
    assert table.waiting()
    assert table.take() == [1, 2]
    assert not table.waiting()


def test_a_batch_goes_on_without_a_member_that_left() -> None:
    table = BatchTable()
    table.add(KEY, 1, 2)
    table.add(KEY, 2, 2)
    table.prepared(KEY, 2)
    table.leave(KEY, 1)
    assert table.take() == [2]


def test_a_member_can_leave_a_batch_that_waits_for_the_gpu() -> None:
    table = BatchTable()
    for serial in (1, 2):
        table.add(KEY, serial, 2)
        table.prepared(KEY, serial)
    table.leave(KEY, 1)
    assert table.take() == [2]


def test_a_batch_that_everybody_left_never_runs() -> None:
    table = BatchTable()
    table.add(KEY, 1, 1)
    table.leave(KEY, 1)
    assert table.take() is None


def test_a_lost_connections_incomplete_batches_are_forgotten() -> None:
    table = BatchTable()
    table.add((1, 7), 1, 2)
    table.prepared((1, 7), 1)
    table.forget(1)
    table.add((2, 7), 2, 1)
    table.prepared((2, 7), 2)
    assert table.take() == [2]


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), max_size=6), st.randoms())
def test_every_prepared_request_runs_once_in_its_own_batch(
    batches: list[list[bool]], shuffle: st.DataObject
) -> None:
    table = BatchTable()
    steps, expected, serial = [], set(), 0
    for number, members in enumerate(batches):
        prepared = []
        for stays in members:
            serial += 1
            table.add((1, number), serial, len(members))
            steps.append(((1, number), serial, stays))
            if stays:
                prepared.append(serial)
        if prepared:
            expected.add(tuple(prepared))
    shuffle.shuffle(steps)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    for key, number, stays in steps:
        (table.prepared if stays else table.leave)(key, number)
    taken = set()
    while (members_taken := table.take()) is not None:
        taken.add(tuple(members_taken))
    assert taken == expected


def test_a_batch_from_before_the_card_grew_hot_runs_in_parts() -> None:
    table = BatchTable()
    for serial in (1, 2, 3):
        table.add(KEY, serial, 3)
        table.prepared(KEY, serial)
    table.limit = 2
    assert table.take() == [1, 2]
    assert table.waiting()
    table.leave(KEY, 3)
    assert table.take() is None


@given(st.lists(st.integers(1, 5), max_size=5), st.lists(st.none() | st.integers(1, 4), max_size=9))
def test_however_the_limit_changes_everything_runs_once_and_in_order(
    sizes: list[int], limits: list[int | None]
) -> None:
    table, serials = BatchTable(), iter(range(1000))
    for number, size in enumerate(sizes):
        for serial in [next(serials) for _ in range(size)]:
            table.add((1, number), serial, size)
            table.prepared((1, number), serial)
    taken: list[int] = []
    while table.waiting():
        table.limit = limits.pop() if limits else None
        members = table.take()
        assert members is not None
        assert table.limit is None or len(members) <= table.limit
        taken += members
    assert taken == list(range(sum(sizes)))


def test_what_is_generated_otherwise_runs_in_a_part_of_its_own() -> None:
    table = BatchTable()
    table.alike = {1: "cold", 2: "hot", 3: "cold", 4: "hot", 5: "cold"}.__getitem__
    for serial in range(1, 6):
        table.add(KEY, serial, 5)
        table.prepared(KEY, serial)
    table.limit = 2
    parts = [table.take() for _ in range(4)]
    assert parts == [[1, 3], [2, 4], [5], None]
