# SPDX-License-Identifier: Apache-2.0
"""From logits to tokens, on the device: greedy, or drawn by each row's own terms and seed.

Drawn as the library does: temperature, then the top k, then the top p. The random number of a row
comes from its seed and position alone, so an answer hangs neither on its neighbours nor on when it
joined.
"""

from dataclasses import dataclass, fields

import torch

from gpuwarden.worker.engines.transformers.answering import BROKEN

GREEDY_BELOW = 1e-4  # a temperature; the logits of a colder one would overflow
MULTIPLIERS = (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35)  # of golden ratio and of murmur3's finalizer
WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Terms:
    """How each row's tokens are chosen; tensors of [rows].

    :ivar temperature: 0 is greedy.
    :ivar top_k: 0 is no limit.
    :ivar top_p: 1 is no limit.
    :ivar seed: 32 bits.
    :ivar floor: before this position no stop token is chosen.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    seed: torch.Tensor
    floor: torch.Tensor

    @classmethod
    def make(cls, rows: int, device: torch.device) -> "Terms":
        """Of rows that nobody has."""
        whole = [torch.zeros(rows, dtype=torch.long, device=device) for _ in range(3)]
        real = [torch.zeros(rows, device=device) for _ in range(2)]
        return cls(real[0], whole[0], real[1], whole[1], whole[2])

    def of(self, rows: torch.Tensor) -> "Terms":
        """Those of some rows."""
        return Terms(*(getattr(self, entry.name)[rows] for entry in fields(self)))

    def first(self, count: int) -> "Terms":
        """Those of the first rows."""
        return Terms(*(getattr(self, entry.name)[:count] for entry in fields(self)))

    def exchange(self, one: int, other: int) -> None:
        """Two rows change their places."""
        for entry in fields(self):
            tensor = getattr(self, entry.name)
            kept = tensor[one].clone()
            tensor[one] = tensor[other]
            tensor[other] = kept


def without_stops(
    logits: torch.Tensor, positions: torch.Tensor, terms: Terms, stops: torch.Tensor
) -> torch.Tensor:
    """Logits in which nobody ends before the number of tokens that it asked for.

    :param logits: [rows, vocabulary], float32; changed.
    :param positions: [rows], where the chosen token will stand.
    :param stops: the stop tokens' numbers.
    """
    early = (positions < terms.floor)[:, None]
    logits[:, stops] = logits[:, stops].masked_fill(early, float("-inf"))
    return logits


def greedy(logits: torch.Tensor) -> torch.Tensor:
    """[rows], the likeliest tokens."""
    return logits.argmax(dim=-1)


def without_broken(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Tokens, but ``BROKEN`` for the rows that hold anything that is no number."""
    # What is no number counts as the largest.
    largest = logits.gather(1, greedy(logits)[:, None])[:, 0]
    return torch.where(largest.isnan(), torch.full_like(tokens, BROKEN), tokens)


def drawn(logits: torch.Tensor, positions: torch.Tensor, terms: Terms) -> torch.Tensor:
    """[rows], tokens by each row's terms; the likeliest for those that are greedy."""
    temperature = terms.temperature.clamp(min=GREEDY_BELOW)[:, None]
    scores, tokens = (logits / temperature).sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scores.shape[1], device=scores.device)[None]
    limit = torch.where(terms.top_k > 0, terms.top_k, scores.shape[1])[:, None]
    weights = torch.softmax(scores.masked_fill(rank >= limit, float("-inf")), dim=-1)
    before = weights.cumsum(-1) - weights
    kept = weights * ((before < terms.top_p[:, None]) | (rank == 0))
    filled = kept.cumsum(-1)
    wanted = uniform(terms.seed, positions)[:, None] * filled[:, -1:]
    place = (filled <= wanted).sum(-1, keepdim=True)
    # Not below 0: of scores that are no numbers nothing is kept.
    place = torch.minimum(place, (kept > 0).sum(-1, keepdim=True) - 1).clamp(min=0)
    chosen = tokens.gather(1, place)[:, 0]
    return torch.where(terms.temperature < GREEDY_BELOW, greedy(logits), chosen)


def uniform(seed: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """A number from 0 up to 1 for each row, by its seed and position alone."""
    mixed = (seed * MULTIPLIERS[0] + position * MULTIPLIERS[1]) & WORD
    for multiplier in (MULTIPLIERS[1], MULTIPLIERS[2]):
        mixed = ((mixed ^ (mixed >> 16)) * multiplier) & WORD
    mixed = mixed ^ (mixed >> 16)
    return (mixed >> 8).float() / (1 << 24)
