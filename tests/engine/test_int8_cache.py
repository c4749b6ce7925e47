# SPDX-License-Identifier: Apache-2.0
"""The cache in int8: how far answers are off, and that neighbours change nothing."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from gpuwarden.worker.engine import OptionsError
from gpuwarden.worker.engines.memoryplan import GIB, CardMemory
from gpuwarden.worker.engines.transformers import attention, layers
from gpuwarden.worker.engines.transformers.options import read_options
from gpuwarden.worker.engines.transformers.planning import plan_of
from tests.engine.driving import Asked, Driver, asked, in_company, mixed
from tests.engine.tiny import WINDOW

# Of the logits' norm. Measured with these models over 100 tokens: 0.3 % on average, 0.8 % at most;
# bfloat16 in place of float32 changes the same logits by 1 % on average, 1.5 % at most.
LOGITS_OFF = 0.0125
CHOICES_ALIKE = 0.95  # measured: 0.97 to 1

LONG = asked("Describe all that you see. " * 2, image=1, max_tokens=60, ignore_eos=True)
SHORT = asked("What is it?", image=2, max_tokens=5, ignore_eos=True)
TEXT = asked("How are you?", max_tokens=3 * WINDOW, ignore_eos=True)


@pytest.fixture(scope="module")
def plain(gemma3: Path) -> Driver:
    return Driver(gemma3)


@pytest.fixture(scope="module")
def in_int8(gemma3: Path) -> Driver:
    return Driver(gemma3, cache_dtype="int8")


def logits_of(driver: Driver, one: Asked, tokens: list[int]) -> torch.Tensor:
    """[tokens, vocabulary], what leads to each of the tokens, which are given."""
    decoder = driver.engine._built.decoder
    driver.engine._runner.forget_all()  # what is on its way of the former would hold a step up
    driver.join(0, one)
    found = [decoder.logits[0].clone()]
    for token in tokens[:-1]:
        decoder.tokens[0] = token
        driver.engine.step()
        found.append(decoder.logits[0].clone())
    driver.engine.leave(0)
    return torch.stack(found)


@pytest.mark.parametrize("one", [LONG, TEXT], ids=["image", "past the window's wrap"])
def test_logits_of_the_same_tokens_are_off_by_a_hundredth_at_most(
    plain: Driver, in_int8: Driver, one: Asked
) -> None:
    tokens = list(plain.alone(one))
    expected, found = (logits_of(driver, one, tokens) for driver in (plain, in_int8))
    assert torch.equal(expected[0], found[0])  # a prompt sees itself as it was computed
    off = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert 0 < float(off[1:].max()) < LOGITS_OFF
    alike = expected.argmax(1) == found.argmax(1)
    assert float(alike.float().mean()) >= CHOICES_ALIKE
    best = expected.topk(2).values
    margin = best[:, 0] - best[:, 1]
    assert bool((margin[~alike] < 4 * LOGITS_OFF * expected.std()).all())


@pytest.mark.parametrize("seed", range(2))
def test_an_answer_is_the_same_in_any_company(in_int8: Driver, seed: int) -> None:
    chance = random.Random(seed)
    requests = mixed(chance)
    alone = {id(one): list(in_int8.alone(one)) for one in requests}
    for one, tokens in in_company(in_int8, requests, chance):
        assert tokens == alone[id(one)]


def test_at_one_shape_all_that_a_row_holds_is_bitwise_the_same_whoever_is_beside_it(
    gemma3: Path,
) -> None:
    driver = Driver(gemma3, slots=3, cache_dtype="int8", reproducible=True)
    driver.join(0, LONG)
    until_asked(driver, 0, 20)
    alone = held(driver, 0)
    driver.engine.leave(0)
    driver.join_all({1: SHORT, 2: TEXT})
    driver.steps(2)
    driver.join(0, LONG)  # in another row than before
    until_asked(driver, 0, 20)  # and moved down, when the short one has left
    beside = held(driver, 0)
    driver.engine.leave(0)
    driver.engine.leave(2)
    assert len(alone) == len(beside) == 1 + 4 * 5
    for one, other in zip(alone, beside, strict=True):
        assert torch.equal(one, other)


def until_asked(driver: Driver, slot: int, tokens: int) -> None:
    """Step until so many tokens were asked for."""
    for _ in range(3 * tokens):
        if driver.engine.answering(slot).asked == tokens:
            return
        driver.steps(1)
    raise AssertionError(f"not asked for {tokens} tokens")


def held(driver: Driver, slot: int) -> list[torch.Tensor]:
    """A row's newest logits, and levels and scales of all layers as far as they are its own."""
    built: Any = driver.engine._built
    row = built.runner._rows[slot]
    answering = driver.engine.answering(slot)
    found = [built.decoder.logits[row].clone()]
    for layer in built.decoder.cache.for_prefill().layers:
        for stored in layer.stored:
            found += [one[row][:, : answering.places - 1].clone() for one in stored.tensors]
    return found


@pytest.mark.parametrize("cache_tokens", [WINDOW - 8, 256])
@pytest.mark.parametrize("cache_dtype", ["auto", "int8"])
@pytest.mark.parametrize("name", ["gemma3", "text_gemma3", "qwen3"])
def test_it_takes_the_bytes_that_the_plan_says(
    name: str, cache_dtype: str, cache_tokens: int, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(name)
    driver = Driver(folder, slots=3, cache_dtype=cache_dtype, cache_tokens=cache_tokens)
    built = driver.engine._built
    plan = plan_of(built.model.folder, built.options, "float32", 3, CardMemory(80 * GIB))
    assert built.decoder.cache.bytes == plan.of("KV cache")
    assert any(part.name == "dequantised" for part in plan.parts) == (cache_dtype == "int8")


def test_no_other_type_is_taken() -> None:
    with pytest.raises(OptionsError, match="cache_dtype is 'int4', should be one of auto, int8"):
        read_options({"path": "x", "cache_dtype": "int4"})
    assert read_options({"path": "x", "cache_dtype": "int8"}).cache_in_int8


def test_attention_by_sums_is_that_by_products(plain: Driver) -> None:
    make = torch.Generator().manual_seed(0)
    query = torch.randn((3, 8, 1, 16), generator=make)
    key, value = (torch.randn((3, 4, 40, 16), generator=make) for _ in range(2))
    mask = torch.zeros(3, 1, 1, 40).masked_fill(torch.arange(40) > 30, float("-inf"))
    module = torch.nn.Module()
    by_sums, _ = attention.attend_by_sums(module, query, key, value, mask, 0.3)
    by_products, _ = attention.attend_by_products(module, query, key, value, mask, 0.3)
    assert torch.allclose(by_sums, by_products, atol=1e-6)


def test_auto_takes_sums_where_compiled_steps_read_int8() -> None:
    assert attention.name_of("auto", "cuda", from_int8=True) == attention.SUMS
    assert attention.name_of("auto", "cuda") == attention.EAGER
    assert attention.name_of("auto", "cpu", from_int8=True) == attention.SDPA
    assert attention.name_of("eager", "cuda", from_int8=True) == attention.EAGER


def test_the_layers_can_be_compiled_whole(
    text_gemma3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a compiler's back end: what is traced is what runs."""
    compile_with = torch.compile

    def traced(function: Any, **options: Any) -> Any:
        return compile_with(function, backend="eager", **options)

    one = asked("?", max_tokens=WINDOW + 10, ignore_eos=True)
    driver = Driver(text_gemma3, cache_dtype="int8")
    expected = list(driver.alone(one))
    monkeypatch.setattr(torch, "compile", traced)
    built = driver.engine._built
    built.model.text_config._attn_implementation = attention.SUMS
    layers.compile_layers(built.model.layers)
    assert list(driver.alone(one)) == expected
