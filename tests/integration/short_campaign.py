# SPDX-License-Identifier: Apache-2.0
"""The short form of a campaign whose figures are about time, among other things."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from tests.soak.thermal import Figures
from tests.waiting import TRIES

Seen = TypeVar("Seen", bound=Figures)


async def at_best(campaign: Callable[[], Awaitable[Seen]]) -> Seen:
    """What a campaign has seen: again, where all that was wrong was that something took too long.

    What else runs on the machine can only make it longer: the best of a few counts.
    """
    for _ in range(TRIES - 1):
        figures = await campaign()
        if not figures.late or set(figures.faults) != set(figures.late):
            return figures
    return await campaign()


def fresh(folder: Path) -> Path:
    """A folder of its own for each time; its name is short, for sockets lie there."""
    made = folder / str(len(list(folder.iterdir())))
    made.mkdir()
    return made
