# SPDX-License-Identifier: Apache-2.0
# What a worker says of its card, for every way in which the card, or nobody, answers.

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from gpuwarden.worker import canary
from gpuwarden.worker.canary import check
from gpuwarden.worker.engine import Engine


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class Mine(Engine):
    """An engine whose canary gives or raises what the test wants."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def canary(self) -> bool | None:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        answered: bool | None = self._outcome
        return answered


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (True, canary.ANSWERED),
        (False, canary.LOST),
        (None, canary.UNUSED),
        (RuntimeError("CUDA error: a patient's name"), canary.LOST),
        (OutOfMemoryError("full"), canary.ANSWERED),
    ],
)
def test_an_engines_own_canary_is_believed(outcome: Any, word: str) -> None:
    said, detail = check(Mine(outcome))
    assert said == word
    assert "patient" not in detail


def torch_with(*, initialized: bool = True, error: Exception | None = None) -> Any:
    """What torch looks like to us."""

    def synchronize() -> None:
        if error is not None:
            raise error

    ones = SimpleNamespace(add_=lambda number: None)
    cuda = SimpleNamespace(is_initialized=lambda: initialized, synchronize=synchronize)
    return SimpleNamespace(cuda=cuda, ones=lambda *size, device: ones)


@pytest.mark.parametrize(
    ("torch", "word"),
    [
        (torch_with(), canary.ANSWERED),
        (torch_with(error=RuntimeError("CUDA error: unknown error")), canary.LOST),
        (torch_with(error=OutOfMemoryError("full")), canary.ANSWERED),
        (torch_with(initialized=False), canary.UNUSED),  # on the CPU, and we make no context
        (SimpleNamespace(), canary.UNUSED),
    ],
)
def test_where_the_engine_leaves_it_torch_is_asked_if_it_has_a_context(
    torch: Any, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert check(Mine(None))[0] == word
