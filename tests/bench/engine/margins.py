# SPDX-License-Identifier: Apache-2.0
"""What a teacher said of the engine's choices, in counts. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """One token of one answer, as the reference sees it; sizes in logits.

    :ivar first, second: the tokens that it likes best.
    :ivar margin: how far apart these are.
    :ivar chosen: the engine's token.
    :ivar behind: how far the engine's token is behind the first.
    :ivar moved: how far the margin moves when the reference itself is run in other shapes.
    """

    first: int
    second: int
    margin: float
    chosen: int
    behind: float
    moved: float


def counts_of(places: Sequence[Place], noise: float | None = None) -> dict[str, Any]:
    """How many choices are the reference's, and how many of the others its noise explains.

    :param noise: None: what the places say themselves, the largest move.
    """
    moves = sorted(place.moved for place in places)
    limit = moves[-1] if noise is None else noise
    other = [place for place in places if place.chosen != place.first]
    margins = sorted(place.margin for place in places)
    return {
        "choices": len(places),
        "equal": len(places) - len(other),
        "other": len(other),
        "other_with_margin_below_noise": sum(place.margin <= limit for place in other),
        "other_behind_by_less_than_noise": sum(place.behind <= limit for place in other),
        "other_beyond_noise": sum(place.margin > limit for place in other),
        "most_behind": max((place.behind for place in other), default=0.0),
        "noise": limit,
        "noise_p50": moves[len(moves) // 2],
        "noise_p99": moves[min(len(moves) - 1, int(0.99 * len(moves)))],
        "margin_p50": margins[len(margins) // 2],
        "margins_below_noise": sum(margin <= limit for margin in margins),
    }
