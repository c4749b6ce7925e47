# SPDX-License-Identifier: Apache-2.0
"""Whoever its neighbours are, a request's tokens are those of the library's own ``generate``."""

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.engine.driving import Asked, Driver, asked, generated, in_company, mixed
from tests.engine.tiny import WINDOW, save_text_gemma3

LONG = asked("Describe all that you see. " * 2, image=1, max_tokens=60)
SHORT = asked("What is it?", image=2, max_tokens=5)
TEXT = asked("How are you?", max_tokens=20)


@pytest.fixture(scope="module")
def driver(gemma3: Path) -> Driver:
    return Driver(gemma3)


@pytest.mark.parametrize("one", [LONG, SHORT, TEXT], ids=["long", "short", "text"])
def test_alone(driver: Driver, gemma3: Path, one: Asked) -> None:
    assert driver.alone(one) == generated(gemma3, one)


def test_past_the_wrap_of_the_sliding_window(driver: Driver, gemma3: Path) -> None:
    one = asked("?", max_tokens=3 * WINDOW)
    assert len(driver.alone(one)) > 2 * WINDOW
    assert driver.tokens[0] == generated(gemma3, one)


def test_joined_late_beside_a_long_one_and_left_early(driver: Driver, gemma3: Path) -> None:
    driver.join(2, LONG)
    driver.steps(9)
    driver.join(0, TEXT)
    driver.steps(4)
    driver.join(3, SHORT)
    driver.until_all_are_through(3)
    driver.join(3, asked("And now?", image=4, max_tokens=8))
    driver.until_all_are_through(0, 2, 3)
    assert driver.tokens[2] == generated(gemma3, LONG)
    assert driver.tokens[0] == generated(gemma3, TEXT)
    assert driver.tokens[3] == generated(gemma3, asked("And now?", image=4, max_tokens=8))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_joined_in_a_group_of_texts_and_images(driver: Driver, gemma3: Path, count: int) -> None:
    group = dict(enumerate([SHORT, TEXT, LONG, asked("Where?", image=7, max_tokens=12)][:count]))
    driver.join_all(group)
    driver.until_all_are_through(*group)
    for slot, one in group.items():
        assert driver.tokens[slot] == generated(gemma3, one)


def test_the_last_one_is_moved_down_when_its_neighbours_have_left(
    driver: Driver, gemma3: Path
) -> None:
    driver.join_all({0: SHORT, 1: SHORT, 2: SHORT, 3: LONG})
    driver.until_all_are_through(0, 1, 2)
    driver.steps(5)
    driver.join(0, TEXT)
    driver.until_all_are_through(0, 3)
    assert driver.tokens[3] == generated(gemma3, LONG)
    assert driver.tokens[0] == generated(gemma3, TEXT)


@pytest.mark.parametrize("seed", range(3))
def test_in_any_company(driver: Driver, gemma3: Path, seed: int) -> None:
    chance = random.Random(seed)
    for one, tokens in in_company(driver, mixed(chance), chance):
        assert tokens == generated(gemma3, one)


def test_with_plain_products_for_attention(gemma3: Path) -> None:
    driver = Driver(gemma3, attn_implementation="eager")
    driver.join_all({0: LONG, 1: TEXT})
    driver.until_all_are_through(0, 1)
    assert driver.tokens[0] == generated(gemma3, LONG)
    assert driver.tokens[1] == generated(gemma3, TEXT)


def test_reproducibly(gemma3: Path) -> None:
    driver = Driver(gemma3, reproducible=True)
    driver.join_all({0: SHORT, 1: TEXT})
    driver.until_all_are_through(0, 1)
    assert driver.tokens[0] == generated(gemma3, SHORT)
    assert driver.tokens[1] == generated(gemma3, TEXT)


def test_up_to_a_stop_token(gemma3: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(gemma3, folder)
    stops = [generated(gemma3, LONG)[6], generated(gemma3, TEXT)[3]]
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": stops}))
    driver = Driver(folder)
    late = asked("How are you?", max_tokens=20, min_tokens=9)
    driver.join_all({0: LONG, 1: TEXT, 2: late})
    driver.until_all_are_through(0, 1, 2)
    for slot, one in ((0, LONG), (1, TEXT)):
        assert driver.tokens[slot] == generated(folder, one)
        assert driver.results[slot]["finish_reason"] == "stop"
        assert len(driver.tokens[slot]) <= 7
    assert len(driver.tokens[2]) >= 9


def test_a_model_whose_output_is_its_input_turned_round(tmp_path: Path) -> None:
    """As MedGemma's: its files hold that weight once, and are whole."""
    folder = save_text_gemma3(tmp_path / "tied", tie_word_embeddings=True)
    assert Driver(folder).alone(TEXT) == generated(folder, TEXT)


def test_models_of_text_alone(text_gemma3: Path, qwen3: Path) -> None:
    for folder in (text_gemma3, qwen3):
        driver = Driver(folder)
        several = {0: TEXT, 1: asked("Tell me more. " * 5, max_tokens=50), 2: asked("?")}
        driver.join_all(several)
        driver.until_all_are_through(0, 1)
        for slot in (0, 1):
            assert driver.tokens[slot] == generated(folder, several[slot])
