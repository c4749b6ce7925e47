# SPDX-License-Identifier: Apache-2.0
"""Steps sent ahead: while the device works on one, the host looks at what the one before gave."""

from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

import torch

from gpuwarden.worker.engines.transformers.answering import Answering
from gpuwarden.worker.engines.transformers.decoder import Decoder
from gpuwarden.worker.engines.transformers.joining import Durations
from gpuwarden.worker.engines.transformers.prefill import Prefill, Prompt
from gpuwarden.worker.engines.transformers.rows import Rows
from gpuwarden.worker.engines.transformers.shapes import bucket
from gpuwarden.worker.engines.transformers.waiting import Failed, Waiting

Known = List[Tuple[Answering, int]]  # whose next token is which


@dataclass(frozen=True)
class _Flight:
    """Tokens on their way to the host."""

    tokens: torch.Tensor
    event: Optional[Any]
    members: List[Tuple[Answering, int]]  # and their rows

    @property
    def is_here(self) -> bool:
        """Whether they have arrived."""
        return self.event is None or bool(self.event.query())

    def arrived(self) -> Known:
        """Wait for them."""
        if self.event is not None:
            self.event.synchronize()
        values = self.tokens.tolist()
        return [(one, values[row]) for one, row in self.members]


class Runner:
    """Who runs in which row; sends steps and brings back their tokens."""

    def __init__(self, decoder: Decoder, prefill: Prefill) -> None:
        self._decoder = decoder
        self._shapes = decoder.shapes
        self._rows = Rows(self._shapes.slots[-1])
        self._waiting = Waiting(prefill, self._shapes, self._rows.take, self._rows.free)
        self._in: Dict[int, Answering] = {}
        self._flights: Deque[_Flight] = deque()
        self._live: List[bool] = []

    def __contains__(self, slot: int) -> bool:
        return slot in self._in or self._waiting.find(slot) is not None

    def __getitem__(self, slot: int) -> Answering:
        return self._in.get(slot) or self._waiting.find(slot) or self._in[slot]

    @property
    def flies(self) -> bool:
        """Whether tokens are on their way."""
        return bool(self._flights)

    def join(self, joiners: Sequence[Tuple[Answering, Prompt]]) -> None:
        """Have several come in, at once if nobody waits for a step meanwhile, else between steps.

        :param joiners: and their prompts, whose rows are not known yet.
        """
        for one, prompt in joiners:
            self._waiting.add(one, prompt)
        if not self._streams:
            self._go_on_joining()

    def set_durations(self, durations: Durations) -> None:
        """How long what is captured takes on this card."""
        self._waiting.durations = durations

    def failed(self) -> List[Failed]:
        """Who could not be taken in, and why, since this was asked last."""
        return self._waiting.failed()

    def leave(self, slot: int) -> None:
        """Whoever is in a slot leaves it; what is on its way of it is nobody's."""
        one = self._in.pop(slot, None) or self._waiting.remove(slot)
        if one is not None:
            one.ended = True
        row = self._rows.free(slot)
        if row is not None:
            self._decoder.reset(row)
            if one is not None and one.broken:
                self._decoder.cache.clear(row)

    def step(self) -> Known:
        """Send the next step; what is known since.

        A step's tokens don't wait for those who came in behind it: these are known a call later,
        before anything more is sent.
        """
        sent = True
        if len(self._flights) < 2:  # the last one is a step that was sent ahead
            self._go_on_joining()
            sent = self._send()
        known: Known = []
        while len(self._flights) > int(sent) and (not known or self._flights[0].is_here):
            known += [
                (one, token) for one, token in self._flights.popleft().arrived() if not one.ended
            ]
        return known

    def forget_all(self) -> None:
        """Nobody is in any row, whatever was on its way."""
        for slot in list(self._in):
            self.leave(slot)
        self._waiting.clear()
        self._flights.clear()

    @property
    def _streams(self) -> bool:
        """Whether anybody waits for tokens, be they on their way already."""
        return any(not (one.ended or one.parked) for one in self._in.values())

    def _go_on_joining(self) -> None:
        joined = self._waiting.go_on(streams=self._streams) if len(self._waiting) else []
        for one in joined:
            self._in[one.slot] = one
        if joined:
            self._send_home(joined)

    def _send(self) -> bool:
        running = [one for one in self._in.values() if one.runs]
        if not running:
            return False
        slots = [one.slot for one in running]
        for row, other in self._rows.moves(slots, self._shapes.slots):
            self._decoder.exchange(row, other)
        rows = bucket(self._rows.extent(slots), self._shapes.slots)
        inside = [one for one in self._in.values() if self._rows[one.slot] < rows]
        length = bucket(max(one.places for one in inside), self._shapes.lengths)
        self._set_live({self._rows[slot] for slot in slots})
        draws = any(one.draws for one in running)
        self._decoder.step(rows, length, draws=draws)
        for one in running:
            one.asked += 1
        self._send_home(running)
        return True

    def _set_live(self, rows: Any) -> None:
        live = [row in rows for row in range(self._shapes.slots[-1])]
        if live != self._live:
            self._live = live
            self._decoder.set_live(live)

    def _send_home(self, members: Sequence[Answering]) -> None:
        rows = [(one, self._rows[one.slot]) for one in members]
        tokens = self._decoder.tokens
        if tokens.device.type != "cuda":
            self._flights.append(_Flight(tokens.clone(), None, rows))
            return
        home = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        home.copy_(tokens, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._flights.append(_Flight(home, event, rows))
