# SPDX-License-Identifier: Apache-2.0
"""A model that computes what is no number: that caller gets an error, and nobody else."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gpuwarden.worker.engines.transformers.answering import BrokenAnswerError
from gpuwarden.worker.engines.transformers.sampling import Terms, drawn
from gpuwarden.worker.gpu import answer_of
from tests.engine.driving import Driver, asked, generated

BAD = "Z"  # whose embedding is no number
LONG = asked("Tell me more.", image=3, max_tokens=40)
TEXT = asked("How are you?", max_tokens=20)


@pytest.fixture(scope="module", params=["auto", "int8"])
def driver(request: pytest.FixtureRequest, gemma3: Path) -> Driver:
    driver = Driver(gemma3, slots=2, cache_dtype=request.param)
    model = driver.engine._built.model
    (bad,) = driver.engine._prompter._processor.tokenizer.convert_tokens_to_ids([BAD])
    model.whole.get_input_embeddings().weight[bad] = float("nan")
    return driver


def step(driver: Driver) -> dict[int, Any]:
    results = driver.engine.step()
    for slot in results:
        driver.engine.leave(slot)
    return results


@pytest.mark.parametrize("drawing", [{}, {"temperature": 1.0, "top_p": 0.9, "seed": 3}])
def test_who_is_broken_fails_alone_and_leaves_nothing_to_who_comes_next(
    driver: Driver, drawing: dict[str, Any]
) -> None:
    expected = list(driver.alone(LONG))
    driver.join(0, LONG)
    driver.steps(3)
    driver.join(1, asked(f"What is {BAD}?", max_tokens=30, **drawing))
    results: dict[int, Any] = {}
    while 1 not in results:
        assert 0 not in results
        results.update(step(driver))
    assert isinstance(results[1], BrokenAnswerError)
    for layer in driver.engine._built.decoder.cache.for_prefill().layers:
        assert all(one.isfinite().all() for stored in layer.stored for one in stored.tensors)
    driver.join(1, LONG)
    driver.until_all_are_through(0, 1)
    assert driver.tokens[0] == driver.tokens[1] == expected


def test_the_caller_is_told_what_it_means(driver: Driver) -> None:
    failure: Any = answer_of(driver.engine, BrokenAnswerError())
    assert failure.kind == "engine_error"
    assert "no numbers" in failure.message


def test_in_a_group_the_others_are_answered(driver: Driver, gemma3: Path) -> None:
    driver.join_all({0: asked(BAD), 1: TEXT})
    results: dict[int, Any] = {}
    while len(results) < 2:
        results.update(step(driver))
    assert isinstance(results[0], BrokenAnswerError)
    if driver.engine.options.cache_dtype == "auto":
        assert driver.tokens[1] == generated(gemma3, TEXT)


def test_a_draw_from_what_is_no_number_stays_within_the_vocabulary() -> None:
    logits = torch.full((2, 50), float("nan"))
    logits[1] = float("-inf")
    terms = Terms.make(2, torch.device("cpu"))
    terms.temperature.fill_(1)
    terms.top_p.fill_(1)
    tokens = drawn(logits, torch.zeros(2, dtype=torch.long), terms)
    assert bool(((tokens >= 0) & (tokens < 50)).all())
