# SPDX-License-Identifier: Apache-2.0
"""Who joins while others stream: looked at and taken in between their steps."""

from pathlib import Path
from typing import Any

import pytest

from gpuwarden.worker.engines.transformers import running
from tests.engine.driving import Asked, Driver, asked, generated

ENDLESS = asked("Go on.", max_tokens=150, ignore_eos=True)
FIRST = asked("What is this?", image=1, max_tokens=12)
SECOND = asked("And this, compared to it?", image=2, max_tokens=12)
TEXT = asked("How are you?", max_tokens=12)


@pytest.fixture(scope="module")
def driver(gemma3: Path) -> Driver:
    return Driver(gemma3)


@pytest.fixture(autouse=True)
def endless(driver: Driver) -> Any:
    """Somebody streams all the time."""
    driver.join(0, ENDLESS)
    driver.steps(2)
    yield
    driver.engine.leave(0)


def test_all_get_the_librarys_tokens_whoever_is_looked_at_meanwhile(
    driver: Driver, gemma3: Path
) -> None:
    several: dict[int, Asked] = {1: FIRST, 2: TEXT, 3: SECOND}
    driver.join_all(several)
    driver.until_all_are_through(*several)
    for slot, one in several.items():
        assert driver.tokens[slot] == generated(gemma3, one)


def test_streams_get_a_token_between_any_two_pictures(driver: Driver) -> None:
    driver.join_all({1: FIRST, 2: SECOND})
    had = len(driver.tokens[0])
    driver.steps(4)
    assert len(driver.tokens[0]) >= had + 3
    assert len(driver.tokens[1]) > 0
    driver.until_all_are_through(1, 2)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_whose_caller_goes_while_it_waits_leaves_the_others_what_they_see(
    driver: Driver, gemma3: Path, steps: int
) -> None:
    driver.join_all({1: FIRST, 2: SECOND, 3: FIRST})
    driver.steps(steps)
    driver.engine.leave(1)
    driver.until_all_are_through(2, 3)
    assert driver.tokens[2] == generated(gemma3, SECOND)
    assert driver.tokens[3] == generated(gemma3, FIRST)


def test_who_can_not_be_taken_in_fails_alone(
    driver: Driver, gemma3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill = driver.engine._built.prefill
    take_in = prefill.take_in_seen

    def refuse(prompts: Any) -> None:
        if any(one.picture_count == 0 for one in prompts):
            raise MemoryError
        take_in(prompts)

    monkeypatch.setattr(prefill, "take_in_seen", refuse)
    driver.join_all({1: FIRST, 2: TEXT, 3: SECOND})
    failed: dict[int, Any] = {}
    for _ in range(8):
        failed |= driver.engine.step()
        if failed:
            break
    assert [(slot, type(why)) for slot, why in failed.items()] == [(2, MemoryError)]
    driver.engine.leave(2)
    driver.until_all_are_through(1, 3)
    assert driver.tokens[1] == generated(gemma3, FIRST)
    assert driver.tokens[3] == generated(gemma3, SECOND)


def test_tokens_that_arrive_one_by_one_are_the_same_and_nobody_waits_for_who_came_in(
    driver: Driver, gemma3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a card: what was sent last is never there at once.
    monkeypatch.setattr(running._Flight, "is_here", False)
    runner = driver.engine._built.runner
    driver.join_all({1: FIRST, 2: TEXT})
    together = 0
    for _ in range(12):
        had = {slot: len(driver.tokens.get(slot, [])) for slot in (0, 1)}
        driver.steps(1)
        first = not had[1] and driver.tokens.get(1)
        together += bool(first and len(driver.tokens[0]) > had[0])
    assert together == 0
    assert runner.flies
    driver.until_all_are_through(1, 2)
    assert driver.tokens[1] == generated(gemma3, FIRST)
    assert driver.tokens[2] == generated(gemma3, TEXT)
