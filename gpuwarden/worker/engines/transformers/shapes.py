# SPDX-License-Identifier: Apache-2.0
"""Buckets: the few shapes that steps run in, so that each can be captured once. Pure."""

from dataclasses import dataclass
from typing import List, Sequence, Tuple

MANY_SLOTS = 8  # from there on doubled; steps of 2 to 7 rows take longer than those of 8
LENGTH_STEP = 256  # of the cache that a step reads; finer saves little: attention is a tenth of it
PROMPT_STEPS = (64, 128, 256, 352, 384, 512, 768, 1024, 1536, 2048)  # an image and a question: 352


@dataclass(frozen=True)
class Shapes:
    """The shapes of one engine.

    :ivar slots: numbers of slots that a step may run; the last one is all of them.
    :ivar lengths: tokens of the cache that a step may read; the last one is the whole cache.
    :ivar prompts: tokens that prompts are filled up to.
    :ivar groups: numbers of joiners.
    """

    slots: Tuple[int, ...]
    lengths: Tuple[int, ...]
    prompts: Tuple[int, ...]
    groups: Tuple[int, ...]


def plan_shapes(slots: int, cache_tokens: int, group: int, *, fixed: bool) -> Shapes:
    """The shapes for so many slots of so many tokens; ``fixed``: one of each but prompts."""
    lengths = _upto(cache_tokens, _doubling(min(LENGTH_STEP, cache_tokens), cache_tokens))
    prompts = _upto(cache_tokens, [one for one in PROMPT_STEPS if one < cache_tokens])
    group = min(group, slots)
    if fixed:
        return Shapes((slots,), (cache_tokens,), prompts, (group,))
    several = [one for one in (1, *_doubling(MANY_SLOTS, slots)) if one < slots]
    groups = _upto(group, _doubling(1, group))
    return Shapes(_upto(slots, several), lengths, prompts, groups)


def bucket(wanted: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds as much."""
    return next(one for one in buckets if one >= wanted)


def _doubling(first: int, end: int) -> List[int]:
    found = []
    while first < end:
        found.append(first)
        first *= 2
    return found


def _upto(last: int, before: Sequence[int]) -> Tuple[int, ...]:
    return (*before, last)
