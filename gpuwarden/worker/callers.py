# SPDX-License-Identifier: Apache-2.0
"""Who waits for the answers of a batch that runs."""

from typing import Any, Callable, Sequence

from gpuwarden.worker.engine import Audience


class Callers(Audience):
    """A batch's callers: heard of on the GPU thread, told on the loop's.

    :param pass_on: has the loop call a function, before it hears that the batch has run: a piece
        that came after its answer would be missing there.
    :param hand_on: tells a job's caller a piece of its answer.
    :param jobs: in the batch's order; ``awaited`` says whether somebody still waits for one.
    """

    def __init__(
        self,
        pass_on: Callable[..., None],
        hand_on: Callable[[Any, str], None],
        jobs: Sequence[Any],
    ) -> None:
        self._pass_on = pass_on
        self._hand_on = hand_on
        self._jobs = jobs

    def hear(self, index: int, text: str) -> None:
        """A piece of an answer."""
        if text:
            self._pass_on(self._hand_on, self._jobs[index], text)

    def waits(self, index: int) -> bool:
        """Whether an item's caller is still there."""
        return bool(self._jobs[index].awaited)
