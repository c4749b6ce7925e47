# SPDX-License-Identifier: Apache-2.0
"""The cards as NVML lists them, asked in a child: a driver that hangs must not hang the boot."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from gpuwarden.nvml.card import CardIdentity
from gpuwarden.nvml.child import ChildError, in_child
from gpuwarden.nvml.library import Session, choose_library

DEADLINE_SECONDS = 10.0  # the design's: a healthy driver answers within one, cold start included


class EnumerationError(Exception):
    """The cards could not be listed; the text says why and what to do.

    :ivar hung: whether the driver didn't answer at all (the cards may well be there).
    """

    def __init__(self, text: str, *, hung: bool = False) -> None:
        super().__init__(text)
        self.hung = hung


@dataclass(frozen=True, slots=True)
class Listing:
    """What the driver listed."""

    driver_version: str | None
    cards: list[CardIdentity]
    faults: list[str]


def list_cards() -> Listing:
    """Ask NVML, in this process. Raises NvmlError if the driver fails."""
    with Session(choose_library()) as session:
        enumeration = session.cards(with_place=True)
        return Listing(session.driver_version(), enumeration.cards, enumeration.faults)


def list_cards_in_child(
    deadline_seconds: float = DEADLINE_SECONDS, ask: Callable[[], Listing] = list_cards
) -> Listing:
    """Ask NVML in a forked child and wait no longer than the deadline.

    :raises EnumerationError: the driver failed, died or didn't answer in time.
    """
    try:
        document = in_child(lambda: asdict(ask()), deadline_seconds)
    except ChildError as error:
        raise EnumerationError(str(error), hung=error.hung) from None
    # JSON has no tuples.
    cards = [
        CardIdentity(**(card | {"mig_uuids": tuple(card["mig_uuids"])}))
        for card in document["cards"]
    ]
    return Listing(document["driver_version"], cards, document["faults"])
