# SPDX-License-Identifier: Apache-2.0
"""What follows from changes: once for many, at once where somebody waits for it."""

import asyncio

from gpuwarden.gateway.notes import Notes


class Told:
    def __init__(self) -> None:
        self.times = 0
        self.notes = Notes(self.note)
        self.noted = asyncio.Event()

    def note(self) -> None:
        self.times += 1
        self.noted.set()


async def test_many_changes_are_noted_once_a_moment_later() -> None:
    told = Told()
    for _ in range(3):
        told.notes.change(somebody_waits=False)
        await asyncio.sleep(0)
    assert told.times == 0
    await told.noted.wait()
    await asyncio.sleep(0)
    assert told.times == 1


async def test_what_somebody_waits_for_is_noted_in_the_next_turn_and_once() -> None:
    told = Told()
    told.notes.change(somebody_waits=False)
    told.notes.change(somebody_waits=True)
    told.notes.change(somebody_waits=True)
    told.notes.change(somebody_waits=False)
    await asyncio.sleep(0)
    assert told.times == 1
    told.notes.change(somebody_waits=True)
    await asyncio.sleep(0)
    assert told.times == 2


async def test_a_change_while_one_is_noted_is_noted_too() -> None:
    told = Told()
    again = told.notes.change

    def note() -> None:
        told.times += 1
        if told.times == 1:
            again(somebody_waits=True)

    notes = Notes(note)
    again = notes.change
    notes.change(somebody_waits=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told.times == 2


async def test_after_its_end_nothing_is_noted() -> None:
    told = Told()
    told.notes.change(somebody_waits=True)
    told.notes.close()
    await asyncio.sleep(0)
    told.notes.change(somebody_waits=True)
    await asyncio.sleep(0)
    assert told.times == 0
