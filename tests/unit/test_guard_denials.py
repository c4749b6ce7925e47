# SPDX-License-Identifier: Apache-2.0
"""A user in a loop is counted; everybody else is told as ever."""

from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.guard.denials import TOLD_SINGLY, WINDOW_SECONDS, Denials, Telling


def test_the_first_of_a_minute_are_told_singly_and_the_others_by_their_number() -> None:
    denials = Denials()
    seen = [denials.note("uid 1000", second / 1000) for second in range(TOLD_SINGLY + 3)]
    assert seen[:TOLD_SINGLY] == [Telling.SINGLY] * TOLD_SINGLY
    assert seen[TOLD_SINGLY:] == [Telling.FIRST_COUNTED, Telling.COUNTED, Telling.COUNTED]
    assert denials.ends_seconds("uid 1000") == WINDOW_SECONDS
    assert denials.end("uid 1000") == 3
    assert denials.note("uid 1000", WINDOW_SECONDS) is Telling.SINGLY


def test_one_user_takes_nothing_from_another() -> None:
    denials = Denials()
    for _ in range(1000):
        denials.note("uid 1000", 0.0)
    assert denials.note("uid 1001", 0.0) is Telling.SINGLY


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), max_size=400))
def test_each_is_told_or_counted(calls: list[tuple[str, float]]) -> None:
    denials, now, singly, open_, counted = Denials(), 0.0, 0, set[str](), 0
    for who, later in calls:
        now += later
        for each in [each for each in open_ if denials.ends_seconds(each) <= now]:
            counted += denials.end(each)
            open_.discard(each)
        telling = denials.note(who, now)
        singly += telling is Telling.SINGLY
        if telling is Telling.FIRST_COUNTED:
            open_.add(who)
    assert singly + counted + sum(denials.end(each) for each in open_) == len(calls)
