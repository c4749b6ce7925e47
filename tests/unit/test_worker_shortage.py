# SPDX-License-Identifier: Apache-2.0
"""Out of memory in a worker: recognised, tried again by fewer, and fatal to nobody."""

import gc
import json
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.allocator import OF_TORCH, read_figures
from gpuwarden.worker.engine import Audience, Context, Engine
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.gpu import BROKEN_OFF, run_batch
from gpuwarden.worker.outputs import Answer
from gpuwarden.worker.retries import Retries
from gpuwarden.worker.settings import SettingsError, parse_settings
from gpuwarden.worker.shortage import TOO_LARGE, drop_caches, is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class Tensor:
    """Something that a batch has in memory."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_the_errors_of_several_libraries_are_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


class Small(Engine):
    """A card of ``room``; each item takes what it says. Nothing that failed may stay in memory."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []
        self.drops = 0
        self.held: list[weakref.ref[Tensor]] = []
        self.told: set[int] = set()

    def predict(self, batch: list[int]) -> list[dict[str, int]]:
        assert all(held() is None for held in self.held), "a failed batch is still in memory"
        tensor = Tensor()
        self.held.append(weakref.ref(tensor))
        self.sizes.append(len(batch))
        for index, item in enumerate(batch):
            if item in self.told:
                self.tell(index, "a piece")
        if sum(batch) > self.room:
            raise OutOfMemoryError("Tried to allocate")
        return [{"took": item} for item in batch]

    def drop_caches(self) -> None:
        self.drops += 1


def outcomes(engine: Engine, items: list[int]) -> tuple[list[Answer], list[bool]]:
    shortages: list[bool] = []
    gc.disable()  # what is freed is freed because nobody holds it
    gc.freeze()  # collecting goes through all that the other tests have loaded
    try:
        answers = run_batch(engine, items, lambda: None, Audience(), on_shortage=shortages.append)
    finally:
        gc.unfreeze()
        gc.enable()
    return answers, shortages


def test_a_batch_is_tried_again_by_halves_and_nothing_of_it_stays_in_memory() -> None:
    engine = Small(room=2)
    answers, shortages = outcomes(engine, [1, 1, 1, 1])
    assert answers == [{"took": 1}] * 4
    assert engine.sizes == [4, 2, 2]
    assert (shortages, engine.drops) == ([False], 1)


def test_who_is_too_large_alone_is_tried_once_more_without_caches_and_then_told_so() -> None:
    engine = Small(room=2)
    answers, shortages = outcomes(engine, [1, 3])
    assert answers == [{"took": 1}, TOO_LARGE]
    assert engine.sizes == [2, 1, 1, 1]
    assert shortages == [False, True, True]


def test_who_has_heard_a_piece_is_not_tried_again() -> None:
    engine = Small(room=2)
    engine.told = {2}
    answers, _ = outcomes(engine, [1, 2])
    assert answers == [{"took": 1}, BROKEN_OFF]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=16), st.integers(1, 9))
def test_whoever_fits_alone_is_answered_and_nobody_else_is(sizes: list[int], room: int) -> None:
    answers, _ = outcomes(Small(room), sizes)
    for size, answer in zip(sizes, answers, strict=True):
        assert answer == ({"took": size} if size <= room else TOO_LARGE)


class Stubborn(Engine):
    def drop_caches(self) -> None:
        raise ValueError("John Doe")

    def memory_figures(self) -> dict[str, int]:
        raise ValueError("John Doe")


def test_a_hook_that_fails_is_logged_without_its_text_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drop_caches(Stubborn())
    assert read_figures(Stubborn()) == {}
    assert "ValueError at test_worker_shortage.py" in caplog.text
    assert "Doe" not in caplog.text


# --- whoever ran out of memory in a slot


def test_who_failed_beside_others_waits_for_half_of_them_to_leave() -> None:
    retries = Retries()
    assert retries.take(7, others=5)
    assert retries.next(3) is None
    assert retries.next(2) == 7
    assert not retries


def test_alone_there_is_one_more_try() -> None:
    retries = Retries()
    assert retries.take(7, others=0)
    assert retries.next(0) == 7
    assert not retries.take(7, others=0)
    retries.forget(7)
    assert retries.take(7, others=0)


@given(st.lists(st.integers(0, 100), max_size=30), st.sets(st.integers(0, 30)))
def test_everybody_who_waits_joins_in_order_or_is_withdrawn(
    others: list[int], gone: set[int]
) -> None:
    retries = Retries()
    for serial, count in enumerate(others):
        assert retries.take(serial, count)
    withdrawn = []
    while (serial_gone := retries.withdraw(lambda serial: serial not in gone)) is not None:
        withdrawn.append(serial_gone)
    joined = [retries.next(0) for _ in range(len(retries))]
    assert sorted([*withdrawn, *(one for one in joined if one is not None)]) == list(
        range(len(others))
    )
    assert not retries


# --- what an allocator says


def torch_with(statistics: dict[str, int]) -> Any:
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        memory_stats=lambda: statistics,
        mem_get_info=lambda: (10, 1000),
        empty_cache=lambda: statistics.update({"reserved_bytes.all.current": 0}),
    )
    return SimpleNamespace(cuda=cuda)


def engine_with(**options: Any) -> Engine:
    engine = Engine()
    engine.context = Context("m", options)
    return engine


def test_torch_is_asked_where_the_engine_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = {key: 100 + place for place, key in enumerate(OF_TORCH.values())}
    monkeypatch.setitem(sys.modules, "torch", torch_with(statistics))
    figures = read_figures(engine_with(memory_fraction=0.5))
    assert figures == {**{name: 100 + n for n, name in enumerate(OF_TORCH)}, "limit_bytes": 500}
    drop_caches(engine_with())
    assert read_figures(engine_with())["reserved_bytes"] == 0


def test_figures_that_are_none_are_left_out() -> None:
    class Odd(Engine):
        def memory_figures(self) -> dict[str, Any]:
            return {"reserved_bytes": 5, "peak_bytes": -1, "num_ooms": "3", "secret": 1}

    assert read_figures(Odd()) == {"reserved_bytes": 5}


def test_an_engine_that_tells_two_figures_is_taken_by_its_word() -> None:
    class Plain(Engine):
        def memory(self) -> tuple[int, int]:
            return 7, 5

    assert read_figures(Plain()) == {"reserved_bytes": 7, "allocated_bytes": 5}


@pytest.mark.parametrize("name", ["memory_fraction", "warning_threshold", "monitor_interval"])
@pytest.mark.parametrize("value", [0, -1, True, "much", 4000])
def test_options_of_the_runtime_are_checked_by_name(name: str, value: object) -> None:
    settings = {"number": 0, "engine": "echo", "model": "m", "dispatch_socket": "s"}
    with pytest.raises(SettingsError, match=f"option {name} is"):
        parse_settings(json.dumps({**settings, "options": {name: value}}).encode())


def test_the_failure_says_what_the_caller_can_do() -> None:
    assert isinstance(TOO_LARGE, Failure)
    assert TOO_LARGE.as_meta()["error"]["type"] == "out_of_memory"
