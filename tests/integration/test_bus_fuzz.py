# SPDX-License-Identifier: Apache-2.0
# Every member of the guard's real objects, called as no sane client calls: it answers each in
# words, goes on serving others, and grows no bigger. (The long run: make soak CAMPAIGNS=bus-fuzz.)

from tests.soak.bus_fuzz import fuzz

CALLS = 500
SEED = 20261125


async def test_whatever_is_called_is_answered_and_nothing_is_left_behind() -> None:
    figures = await fuzz(CALLS, SEED)
    print(figures)
    assert figures.faults == []
    assert figures.answered > CALLS * 0.7
    assert len(figures.error_names) >= 8
