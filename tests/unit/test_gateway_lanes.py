# SPDX-License-Identifier: Apache-2.0
"""Whose large body is read while others send theirs."""

import asyncio

import pytest

from gpuwarden.gateway.hands import HANDS
from gpuwarden.gateway.lanes import ABREAST, PRESSING_BYTES, STALL_SECONDS, Lanes, Sender, who_reads


def sender(heard_at: float = 1.0, *, pressing: bool = True, paused: bool = False) -> Sender:
    return Sender(asyncio.Transport(), heard_at, pressing, paused)


def test_of_those_who_press_the_first_are_read() -> None:
    senders = [sender() for _ in range(ABREAST + 2)]
    assert who_reads(senders, 1.0) == senders[:ABREAST]


def test_who_sends_slowly_keeps_nobody_waiting_and_waits_for_nobody() -> None:
    slow = [sender(pressing=False) for _ in range(5)]
    fast = [sender() for _ in range(ABREAST)]
    assert who_reads([*slow[:2], *fast, *slow[2:]], 1.0) == [*slow[:2], *fast, *slow[2:]]


def test_who_was_told_to_wait_goes_on_when_one_before_it_stalls() -> None:
    senders = [sender(), *(sender(2.0) for _ in range(ABREAST - 1)), sender(paused=True)]
    assert who_reads(senders, 1.0 + STALL_SECONDS / 2) == senders[:-1]
    assert who_reads(senders, 1.0 + 2 * STALL_SECONDS) == senders


class Wire(asyncio.Transport):
    """Knows whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


@pytest.mark.parametrize("ended_while_waiting", [True, False])
async def test_all_are_read_in_the_end(ended_while_waiting: bool) -> None:
    lanes = Lanes()
    wires = [Wire() for _ in range(ABREAST + 3)]
    senders = [lanes.enter(wire) for wire in wires]
    for one in senders:
        lanes.heard(one, PRESSING_BYTES)
    assert [wire.is_read for wire in wires] == [True] * ABREAST + [False] * 3
    leaving = senders[-1] if ended_while_waiting else senders[0]
    lanes.leave(leaving)
    lanes.leave(leaving)
    assert sum(not wire.is_read for wire in wires) == 2
    for one in senders:
        lanes.leave(one)
    assert all(wire.is_read for wire in wires)


async def test_as_many_are_carried_as_there_are_hands_and_each_is_read_by_one_alone() -> None:
    lanes = Lanes()
    wires = [Wire() for _ in range(HANDS + 1)]
    senders = [lanes.enter(wire) for wire in wires]
    assert not lanes.pick_up(senders[0]), "it doesn't press yet"
    for one in senders[:HANDS]:
        lanes.heard(one, PRESSING_BYTES)
        assert lanes.pick_up(one)
    assert not any(wire.is_read for wire in wires[:HANDS])
    lanes.heard(senders[HANDS], PRESSING_BYTES)
    assert not wires[HANDS].is_read
    assert not lanes.pick_up(senders[HANDS])
    lanes.put_down(senders[0])
    lanes.leave(senders[0])
    assert wires[0].is_read
    assert wires[HANDS].is_read
    assert lanes.pick_up(senders[HANDS])
    for one in senders:
        lanes.leave(one)


async def test_who_has_to_wait_while_it_is_carried_waits_when_it_is_put_down() -> None:
    lanes = Lanes()
    stalled = [lanes.enter(Wire()) for _ in range(ABREAST)]
    wire = Wire()
    late = lanes.enter(wire)
    lanes.heard(late, PRESSING_BYTES)
    assert lanes.pick_up(late)
    for one in stalled:
        lanes.heard(one, PRESSING_BYTES)
    lanes.put_down(late)
    assert not wire.is_read
    for one in stalled:
        lanes.leave(one)
    assert wire.is_read
