# SPDX-License-Identifier: Apache-2.0
"""A step in a thread that is held in the middle, as by a slow disk, until a test lets it go on."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

DEADLINE_SECONDS = 20.0


class Held:
    """The step; ``begun`` and ``may_go_on`` tell where it is."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_go_on = threading.Event()

    def holding(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def held(*arguments: Any, **named: Any) -> Any:
            self.begun.set()
            assert self.may_go_on.wait(DEADLINE_SECONDS)
            return step(*arguments, **named)

        return held

    async def is_under_way(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, DEADLINE_SECONDS)


@contextmanager
def held_step(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Iterator[Held]:
    """Hold ``owner.name`` while the block runs, whenever it is called in it."""
    held = Held()
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, held.holding(getattr(owner, name)))
        try:
            yield held
        finally:
            held.may_go_on.set()


async def as_far_as_it_gets(task: asyncio.Task[Any], seconds: float = 0.5) -> None:
    """Let a task end if it can, or get to where it waits for what is held."""
    await asyncio.wait([task], timeout=seconds)
