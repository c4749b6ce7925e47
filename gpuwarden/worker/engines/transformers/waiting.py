# SPDX-License-Identifier: Apache-2.0
"""Those who wait to join: their pictures are looked at, their prompts taken in, between steps."""

from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple

from gpuwarden.worker.brokencard import breaks_card
from gpuwarden.worker.engines.transformers.answering import Answering
from gpuwarden.worker.engines.transformers.eyes import PICTURES_LIMIT
from gpuwarden.worker.engines.transformers.joining import Durations, Joiner, next_work
from gpuwarden.worker.engines.transformers.prefill import Prefill, Prompt
from gpuwarden.worker.engines.transformers.shapes import Shapes

Failed = Tuple[Answering, Exception]


@dataclass
class _Waiter:
    """One of them; its prompt has a row only once it is taken in."""

    one: Answering
    prompt: Prompt
    seen: int = 0

    @property
    def joiner(self) -> Joiner:
        pictures = self.prompt.picture_count
        return Joiner(len(self.prompt.tokens), pictures, pictures - self.seen)


class Waiting:
    """The oldest first.

    :param row_of: a row for a slot; ``free``: it did not come in after all.
    :ivar durations: of what is captured; without any, nothing is known to take long.
    """

    def __init__(
        self,
        prefill: Prefill,
        shapes: Shapes,
        row_of: Callable[[int], int],
        free: Callable[[int], Any],
    ) -> None:
        self._prefill = prefill
        self._shapes = shapes
        self._row_of = row_of
        self._free = free
        self._waiters: List[_Waiter] = []
        self._failed: List[Failed] = []
        self.durations = Durations()

    def __len__(self) -> int:
        return len(self._waiters)

    def find(self, slot: int) -> Optional[Answering]:
        """Who waits with that slot."""
        return next((one.one for one in self._waiters if one.one.slot == slot), None)

    def add(self, one: Answering, prompt: Prompt) -> None:
        """One more waits."""
        self._waiters.append(_Waiter(one, prompt))

    def remove(self, slot: int) -> Optional[Answering]:
        """Its caller has gone; None if nobody waits with that slot."""
        gone = self.find(slot)
        if gone is not None:
            self._keep(waiter for waiter in self._waiters if waiter.one is not gone)
        return gone

    def clear(self) -> None:
        """Nobody waits."""
        self._waiters = []
        self._failed = []

    def failed(self) -> List[Failed]:
        """Who could not be taken in, and why, since this was asked last."""
        failed, self._failed = self._failed, []
        return failed

    def go_on(self, *, streams: bool) -> List[Answering]:
        """Do what is to be done before the next step; who has come in.

        :param streams: whether anybody waits for it.
        """
        joiners = [waiter.joiner for waiter in self._waiters]
        work = next_work(joiners, self._shapes, PICTURES_LIMIT, self.durations, streams=streams)
        group = self._waiters[: max(work.prompts, 1)]
        try:
            for _ in range(work.looks):
                self._look()
            return self._take_in(self._waiters[: work.prompts])
        except Exception as error:  # whatever a model, a compiler or memory may raise
            if breaks_card(error):
                raise
        return self._one_by_one(group if work.prompts else self._waiters[:1])

    def _look(self) -> None:
        """At the first picture that has not been looked at."""
        place = sum(waiter.seen for waiter in self._waiters)
        waiter = next(one for one in self._waiters if one.joiner.unseen)
        assert waiter.prompt.pictures is not None
        self._prefill.look(waiter.prompt.pictures[waiter.seen], place)
        waiter.seen += 1

    def _take_in(self, waiters: Sequence[_Waiter]) -> List[Answering]:
        if not waiters:
            return []
        prompts = self._in_rows(waiters)
        try:
            self._prefill.take_in_seen(prompts)
        except BaseException:
            for waiter in waiters:
                self._free(waiter.one.slot)
            raise
        self._waiters = self._waiters[len(waiters) :]
        return [waiter.one for waiter in waiters]

    def _one_by_one(self, waiters: Sequence[_Waiter]) -> List[Answering]:
        """Those of a group that failed, each by itself: only who is at fault fails."""
        self._keep(waiter for waiter in self._waiters if waiter not in waiters)
        joined: List[Answering] = []
        for waiter in waiters:
            try:
                self._prefill.take_in(self._in_rows([waiter]))
            except Exception as error:
                self._free(waiter.one.slot)
                if breaks_card(error):
                    raise
                self._failed.append((waiter.one, error.with_traceback(None)))
            else:
                joined.append(waiter.one)
        return joined

    def _in_rows(self, waiters: Sequence[_Waiter]) -> List[Prompt]:
        return [replace(one.prompt, row=self._row_of(one.one.slot)) for one in waiters]

    def _keep(self, waiters: Iterable[_Waiter]) -> None:
        """Those wait; what was seen lies in the order of who waited before: it is seen again."""
        self._waiters = list(waiters)
        for waiter in self._waiters:
            waiter.seen = 0
