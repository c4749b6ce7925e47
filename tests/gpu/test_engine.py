# SPDX-License-Identifier: Apache-2.0
"""The transformers engine on a real card: layers and heads as large as the real ones, but few.

Needs torch and transformers beside the driver. ``GPUWARDEN_TRY_ON_CPU=1`` tries these tests
themselves, with a tiny model on the CPU.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.worker.faults import Failure
from gpuwarden.worker.slots import Slots
from tests.bench.engine.sizes import CARD, TINY, Sizes
from tests.waiting_guests import WaitingGuests

FEW_LAYERS = replace(
    CARD,
    text={**CARD.text, "num_hidden_layers": 6, "sliding_window": 512},
    vision={**CARD.vision, "num_hidden_layers": 2},
    slots=8,
    # So few layers add little: beside vectors of the usual length each token chose itself again.
    embedding_deviation=0.02,
)
MIXED = 60  # requests of mixed sizes
STEPS_LIMIT = 400
MIB = 1 << 20


@pytest.fixture(scope="module")
def sizes() -> Sizes:
    if os.environ.get("GPUWARDEN_TRY_ON_CPU"):
        return TINY
    if not find_spec("torch"):
        pytest.skip("no NVIDIA GPU that torch could be asked for")
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    return FEW_LAYERS


@pytest.fixture(scope="module")
def folder(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.bench.engine.model import save_model  # noqa: PLC0415 - needs torch

    where = tmp_path_factory.mktemp("models") / "few-layers"
    save_model(where, sizes)
    return where


Make = Callable[..., Any]


@pytest.fixture(scope="module")
def make(sizes: Sizes, folder: Path) -> Make:
    from tests.engine.driving import Driver  # noqa: PLC0415 - needs torch

    def driver(**options: Any) -> Any:
        common = {
            "torch_dtype": "auto",
            "cache_tokens": sizes.cache_tokens,
            "device": sizes.device,
        }
        return Driver(folder, sizes.slots, **{**common, **options})

    return driver


@pytest.fixture(scope="module")
def driver(make: Make) -> Iterator[Any]:
    """The engine with all it has: compiled, captured."""
    yield make()


def question(sizes: Sizes, seed: int, image: int | None = None, tokens: int | None = None) -> Any:
    from tests.engine.driving import asked  # noqa: PLC0415 - needs torch

    chance = random.Random(seed)
    letters = "".join(chance.choice("abcdefgh") for _ in range(chance.randrange(4, 40)))
    count = tokens or chance.randrange(2, sizes.answer_tokens)
    return asked(letters, image, max_tokens=count, min_tokens=count, ignore_eos=True, temperature=0)


def talkative(driver: Any, sizes: Sizes) -> tuple[Any, list[int]]:
    """A question, and its answer: drawn, since the likeliest words of random weights may be one."""
    one = question(sizes, 0, image=1, tokens=sizes.answer_tokens)
    one.parameters.update(temperature=2.0, seed=7)
    said = list(driver.alone(one))
    assert len(set(said)) > 1
    return one, said


def test_at_a_fixed_bucket_tokens_are_the_same_in_any_company(make: Make, sizes: Sizes) -> None:
    driver = make(reproducible=True)
    one, alone = talkative(driver, sizes)
    last = sizes.slots - 1
    driver.join_all({1: question(sizes, 1, 2), 2: question(sizes, 2)})
    driver.steps(3)
    driver.join_all({last: one, 0: question(sizes, 3, 4)})
    driver.until_all_are_through(0, 1, 2, last)
    assert driver.tokens[last] == alone
    driver.join_all(dict.fromkeys(range(min(4, sizes.slots)), one))
    driver.until_all_are_through(*range(min(4, sizes.slots)))
    assert all(driver.tokens[slot] == alone for slot in range(min(4, sizes.slots)))


def test_once_warm_nothing_is_allocated(driver: Any, sizes: Sizes) -> None:
    mixed(driver, sizes, 12)
    before = counted()
    mixed(driver, sizes, MIXED)
    assert counted() == before


def test_who_leaves_frees_the_slot_within_two_steps(driver: Any, sizes: Sizes) -> None:
    long = question(sizes, 5, tokens=sizes.answer_tokens)
    guests = Guests(driver, [long, long, question(sizes, 6, tokens=2)])
    steps_after: list[int] = []

    async def on_gpu(function: Any, *arguments: Any) -> Any:
        found = function(*arguments)
        name = getattr(function, "__name__", "")
        if name == "step":
            guests.steps += 1
            if guests.steps == 4:
                guests.gone.add(1)
        elif name == "leave" and 1 in guests.gone and not steps_after:
            steps_after.append(guests.steps - 4)
        return found

    asyncio.run(served(driver, guests, 2, on_gpu))
    assert isinstance(guests.answers[1], Failure)
    assert guests.answers[1].kind == "cancelled"
    assert steps_after
    assert steps_after[0] <= 2
    assert "text" in guests.answers[0]
    assert "text" in guests.answers[2]


@pytest.mark.parametrize("where", ["join_all", "step"])
def test_who_ran_out_of_memory_is_tried_again_beside_fewer(
    make: Make, sizes: Sizes, where: str
) -> None:
    import torch  # noqa: PLC0415

    driver = make(compile="none", graphs=False)
    cases = [question(sizes, 10 + n, image=n, tokens=4) for n in range(4)]
    guests = Guests(driver, cases)
    shortages: list[bool] = []
    inner = getattr(driver.engine, where)
    failures = iter([True] * (2 if where == "step" else 1))

    def short(*arguments: Any) -> Any:
        if next(failures, False):
            exhausted(torch, sizes.device)
        return inner(*arguments)

    setattr(driver.engine, where, short)

    async def on_gpu(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    asyncio.run(served(driver, guests, sizes.slots, on_gpu, shortages))
    assert not next(failures, False)
    assert shortages == ([False, False] if where == "step" else [])
    for serial in range(len(cases)):
        assert guests.answers[serial]["usage"]["completion_tokens"] == 4
    assert len(driver.alone(question(sizes, 20, tokens=3))) == 3


class Guests(WaitingGuests):
    """Requests in their order, and what each was answered."""

    def __init__(self, driver: Any, cases: list[Any]) -> None:
        super().__init__([driver.engine.preprocess(one.request()) for one in cases])
        self.steps = 0


async def served(
    driver: Any, guests: Guests, count: int, on_gpu: Any, shortages: list[bool] | None = None
) -> None:
    """Until nobody is left."""
    idle = asyncio.Event()
    slots = Slots(driver.engine, count, guests, on_gpu, lambda busy: None if busy else idle.set())
    if shortages is not None:
        slots.on_shortage = shortages.append
    slots.advance()
    try:
        await asyncio.wait_for(idle.wait(), 60)
    finally:
        driver.engine.audience = driver.listener


def mixed(driver: Any, sizes: Sizes, count: int) -> None:
    """Requests of mixed sizes, with images and without, that join and leave as they come."""
    chance = random.Random(count)
    waiting = deque(
        question(sizes, seed, chance.choice([None, seed]), None) for seed in range(count)
    )
    inside: set[int] = set()
    for _ in range(STEPS_LIMIT * count):
        free = [slot for slot in range(sizes.slots) if slot not in inside]
        group = {slot: waiting.popleft() for slot in free[: chance.randrange(0, 5)] if waiting}
        if group:
            driver.join_all(group)
            inside |= set(group)
        driver.steps(chance.randrange(1, 4))
        inside -= set(driver.results)
        if not waiting and not inside:
            return
    raise AssertionError("not through")


def counted() -> dict[str, int]:
    """What torch has asked the card for so far."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        return {}
    seen = torch.cuda.memory_stats()
    return {name: int(seen[name]) for name in ("num_device_alloc", "num_alloc_retries", "num_ooms")}


def exhausted(torch: Any, device: str) -> None:
    """Ask the card for more than it has; on a CPU, fail as the card does."""
    if device != "cuda":
        raise torch.OutOfMemoryError("as on a card")
    torch.empty(1 << 44, dtype=torch.uint8, device=device)
