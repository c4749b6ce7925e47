# SPDX-License-Identifier: Apache-2.0
"""Slots: who leaves, who is parked, who is told what."""

from pathlib import Path

import pytest

from tests.engine.driving import Driver, asked, generated

ENDLESS = asked("Go on.", max_tokens=150, ignore_eos=True)
TEXT = asked("How are you?", max_tokens=20)


@pytest.fixture(scope="module")
def driver(gemma3: Path) -> Driver:
    return Driver(gemma3)


def test_who_leaves_is_told_nothing_more_and_its_slot_is_free_at_once(
    driver: Driver, gemma3: Path
) -> None:
    driver.join_all({0: ENDLESS, 1: TEXT})
    driver.steps(6)
    driver.engine.leave(0)
    heard = len(driver.listener.pieces.get(0, []))
    driver.steps(2)
    assert len(driver.listener.pieces.get(0, [])) == heard
    driver.join(0, TEXT)
    driver.until_all_are_through(0, 1)
    assert driver.tokens[0] == driver.tokens[1] == generated(gemma3, TEXT)


def test_who_is_parked_gets_no_token_and_goes_on_where_it_was(driver: Driver, gemma3: Path) -> None:
    long = asked("Tell me more.", image=3, max_tokens=40)
    driver.join_all({0: long, 1: TEXT, 2: long})
    driver.steps(4)
    assert driver.engine.park(2, True)
    assert driver.engine.park(1, True)
    driver.steps(2)  # what was on its way
    had = len(driver.tokens[2])
    driver.until_all_are_through(0)
    assert len(driver.tokens[2]) == had
    driver.join(3, TEXT)
    driver.until_all_are_through(3)
    driver.engine.park(1, False)
    driver.engine.park(2, False)
    driver.until_all_are_through(1, 2)
    assert driver.tokens[0] == driver.tokens[2] == generated(gemma3, long)
    assert driver.tokens[1] == driver.tokens[3] == generated(gemma3, TEXT)


def test_the_pieces_make_the_answer(driver: Driver) -> None:
    driver.listener.pieces.clear()
    driver.join(1, asked("Say something.", image=5, max_tokens=30))
    driver.until_all_are_through(1)
    assert "".join(driver.listener.pieces[1]) == driver.results[1]["text"] != ""


def test_an_answer_says_how_it_was_made(driver: Driver) -> None:
    driver.engine.thermal_state = "critical"
    driver.alone(TEXT)
    driver.engine.thermal_state = "normal"
    said = driver.results[0]["gpuwarden"]
    assert said | {"model_digest": ""} == {
        "thermal_state": "critical",
        "model_digest": "",
        "engine": "transformers",
        "reproducible": False,
    }
    assert len(said["model_digest"]) == 64
    assert driver.results[0]["usage"]["completion_tokens"] == len(driver.tokens[0])


def test_the_extensions_fix_the_length(driver: Driver) -> None:
    for length in (1, 3, 50):
        fixed = asked("How are you?", max_tokens=length, min_tokens=length, ignore_eos=True)
        assert len(driver.alone(fixed)) == length
        assert driver.results[0]["finish_reason"] == "length"


def test_a_stop_ends_the_text_before_it(driver: Driver) -> None:
    whole = asked("Say something.", image=5, max_tokens=30, ignore_eos=True)
    driver.alone(whole)
    text = driver.results[0]["text"]
    stop = text[7:9]
    driver.alone(asked("Say something.", image=5, max_tokens=30, stop=[stop], ignore_eos=True))
    assert driver.results[0]["text"] == text[: text.index(stop)]
    assert driver.results[0]["finish_reason"] == "stop"
