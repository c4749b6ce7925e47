# SPDX-License-Identifier: Apache-2.0
"""What keys do: nothing is ordered that was not asked about and answered."""

import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.cli.live.board import Thing, gpu_thing, worker_thing
from gpuwarden.cli.live.session import Order, Pressed, Session, View, press
from tests.unit.cli.samples import gpu, guard, worker

NODE = guard(gpus=[gpu(0), gpu(1)], workers=[worker(0), worker(1, gpu=1)])
KEYS = (*string.ascii_lowercase, "up", "down", "enter", "escape", "plus", "minus", "question_mark")


def typed(keys: Sequence[str], chosen: Thing | None = None) -> tuple[Session, list[Order]]:
    session, orders = Session(chosen=chosen), []
    for key in keys:
        pressed = press(session, key, NODE)
        session = pressed.session
        if pressed.order:
            orders.append(pressed.order)
    return session, orders


def test_the_first_thing_is_chosen_and_arrows_choose_others() -> None:
    assert typed(["up"])[0].chosen == gpu_thing(0)
    assert typed(["down"])[0].chosen == gpu_thing(1)
    assert typed(["j", "j", "j", "j", "j", "k"])[0].chosen == worker_thing(0)


@pytest.mark.parametrize(("key", "verb"), [("s", "start"), ("r", "restart"), ("d", "drain")])
def test_an_order_to_a_worker_is_asked_about_first(key: str, verb: str) -> None:
    session, orders = typed([key], worker_thing(1))
    assert session.question is not None
    assert (session.question.verb, session.question.number) == (verb, 1)
    assert orders == []
    _, orders = typed([key, "y"], worker_thing(1))
    assert [(each.verb, each.number) for each in orders] == [(verb, 1)]


@pytest.mark.parametrize("no", ["n", "escape", "q"])
def test_whoever_says_no_has_done_nothing_and_is_told_so(no: str) -> None:
    session, orders = typed(["r", no, "y"], worker_thing(1))
    assert (session.question, orders) == (None, [])
    assert typed(["r", no], worker_thing(1))[0].message == ("nothing was done", "")


def test_an_override_asks_for_how_cool_and_how_long() -> None:
    assert typed(["o", "a"], gpu_thing(1))[1] == [Order("override", 1, "alert", 600)]
    assert typed(["o", "plus", "c"], gpu_thing(1))[1] == [Order("override", 1, "critical", 1800)]
    longest = ["o", *["plus"] * 20, "a"]
    assert typed(longest, gpu_thing(0))[1] == [Order("override", 0, "alert", 86400)]
    shortest = ["o", *["minus"] * 20, "a"]
    assert typed(shortest, gpu_thing(0))[1] == [Order("override", 0, "alert", 60)]


def test_an_override_of_a_workers_card_and_its_end() -> None:
    assert typed(["o", "x"], worker_thing(1))[1] == [Order("clear-override", 1)]


def test_a_key_of_workers_on_a_card_says_what_to_choose() -> None:
    session, orders = typed(["d"], gpu_thing(0))
    assert session.message == ("drain is of a worker: choose one with the arrows", "warn")
    assert (session.question, orders) == (None, [])


def test_a_card_that_is_gone_is_no_longer_chosen() -> None:
    pressed = press(Session(chosen=gpu_thing(7)), "enter", NODE)
    assert pressed.session.chosen == gpu_thing(0)
    assert pressed.session.view is View.DETAILS


@pytest.mark.parametrize(
    ("key", "view"), [("enter", View.DETAILS), ("e", View.EVENTS), ("question_mark", View.HELP)]
)
def test_views_open_scroll_and_close(key: str, view: View) -> None:
    session, _ = typed([key, "down", "pagedown", "up"])
    assert (session.view, session.offset) == (view, 10)
    assert typed([key, "down", "escape"])[0] == Session(chosen=gpu_thing(0))


def test_a_node_without_anything_takes_every_key() -> None:
    nothing = guard(gpus=[], workers=[])
    for key in KEYS:
        pressed: Pressed = press(Session(), key, nothing)
        assert pressed.order is None


@given(st.lists(st.sampled_from(KEYS), max_size=30))
def test_no_keys_give_an_order_without_a_question_before_it(keys: list[str]) -> None:
    session = Session()
    for key in keys:
        asked = session.question
        pressed = press(session, key, NODE)
        if pressed.order:
            assert asked is not None
            assert pressed.order.number == asked.number
        session = pressed.session
