# SPDX-License-Identifier: Apache-2.0
"""One request on its way through the steps, as the host knows it."""

from dataclasses import dataclass, field
from typing import FrozenSet, List, Sequence, Tuple

from gpuwarden.worker.engine import RequestError

BROKEN = -1  # in place of a token whose scores are no numbers


class BrokenAnswerError(RequestError):
    """What a model computed for a request is no number any more: there is no answer in it."""

    def __init__(self) -> None:
        super().__init__(
            "the model computed values that are no numbers (an overflow, or damaged weights), so"
            " there is no answer; in torch_dtype bfloat16 or float32 a model overflows less"
        )


@dataclass
class Answering:
    """A request in a slot.

    The host knows how many tokens were asked for before it knows which they are: steps are sent
    ahead, and what they gave is looked at while the next one runs.

    :ivar prompt_tokens: of its prompt.
    :ivar limit: of tokens in its answer.
    :ivar stops: tokens that end it.
    :ivar stop_texts: texts that end it.
    :ivar asked: tokens that were asked for.
    :ivar tokens: those that are known.
    :ivar parked: it waits, with its row, until the card is cooler.
    :ivar ended: no token is asked for any more.
    :ivar gone: nobody is to be told anything any more.
    :ivar broken: what was computed for it is no number any more.
    """

    slot: int
    prompt_tokens: int
    limit: int
    stops: FrozenSet[int]
    stop_texts: Tuple[str, ...]
    draws: bool
    asked: int = 1
    tokens: List[int] = field(default_factory=list)
    parked: bool = False
    ended: bool = False
    gone: bool = False
    broken: bool = False

    @property
    def runs(self) -> bool:
        """Whether the next step takes it along."""
        return not (self.parked or self.ended or self.asked >= self.limit)

    @property
    def places(self) -> int:
        """Places of the cache that its next step sees."""
        return self.prompt_tokens + self.asked

    def takes(self, token: int) -> bool:
        """Note the next token; whether it is the last one."""
        if token == BROKEN:
            self.broken = self.ended = True
            return True
        self.tokens.append(token)
        self.ended = self.ended or token in self.stops or len(self.tokens) >= self.limit
        return self.ended

    @property
    def answer_tokens(self) -> Sequence[int]:
        """Those that are text: a stop token is none."""
        last = self.tokens[-1:] and self.tokens[-1] in self.stops
        return self.tokens[:-1] if last else self.tokens
