# SPDX-License-Identifier: Apache-2.0
"""Drawn tokens: by the request's own terms and seed, whoever its neighbours are."""

from pathlib import Path

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gpuwarden.worker.engines.transformers.sampling import Terms, drawn, uniform
from tests.engine.driving import Driver, asked

DRAWS = 4000
VOCABULARY = 40


@pytest.fixture(scope="module")
def driver(gemma3: Path) -> Driver:
    return Driver(gemma3)


def terms(rows: int, temperature: float, top_k: int, top_p: float) -> Terms:
    return Terms(
        torch.full((rows,), temperature),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p),
        torch.arange(rows) * 7919,
        torch.zeros(rows, dtype=torch.long),
    )


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.6, 12, 1.0), (1.3, 0, 0.7), (0.9, 9, 0.8)]
)
def test_they_are_distributed_as_the_librarys_own(
    temperature: float, top_k: int, top_p: float
) -> None:
    logits = torch.randn((1, VOCABULARY), generator=torch.Generator().manual_seed(3)) * 2
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    wanted = torch.softmax(warpers(None, logits.clone()), dim=-1)[0]
    rows = logits.expand(DRAWS, -1).clone()
    tokens = drawn(rows, torch.arange(DRAWS) % 37, terms(DRAWS, temperature, top_k, top_p))
    found = torch.bincount(tokens, minlength=VOCABULARY) / DRAWS
    assert set(tokens.tolist()) <= set(torch.nonzero(wanted)[:, 0].tolist())
    assert float((found - wanted).abs().max()) < 0.03


def test_the_random_numbers_are_even() -> None:
    seeds = torch.arange(200)[:, None].expand(-1, 200).reshape(-1)
    places = torch.arange(200)[None].expand(200, -1).reshape(-1)
    numbers = uniform(seeds, places)
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1
    counts = torch.histc(numbers, bins=20, min=0, max=1)
    assert float((counts / numbers.numel() - 0.05).abs().max()) < 0.005


def test_a_seed_gives_the_same_answer_alone_and_in_company(driver: Driver) -> None:
    one = asked("Say something.", image=1, max_tokens=25, temperature=1.0, seed=12345)
    alone = list(driver.alone(one))
    driver.join(1, asked("Go on.", max_tokens=60, ignore_eos=True))
    driver.steps(3)
    driver.join_all({2: one, 3: asked("Say something.", image=1, max_tokens=25, temperature=1.0)})
    driver.until_all_are_through(1, 2, 3)
    assert driver.tokens[2] == alone
    assert driver.tokens[3] != alone


def test_the_top_one_is_the_greedy_one(driver: Driver) -> None:
    greedy = list(driver.alone(asked("Say something.", max_tokens=25)))
    one = asked("Say something.", max_tokens=25, temperature=1.5, top_k=1)
    assert driver.alone(one) == greedy


def test_a_draw_without_a_temperature_takes_the_options(gemma3: Path) -> None:
    driver = Driver(gemma3, do_sample=True, temperature=1.5)
    one = asked("Say something.", max_tokens=25, seed=1)
    other = asked("Say something.", max_tokens=25, seed=2)
    assert driver.alone(one) != driver.alone(other)
