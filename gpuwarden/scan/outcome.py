# SPDX-License-Identifier: Apache-2.0
"""What one look at a card brought. Pure values."""

from dataclasses import dataclass

from gpuwarden.control.states import Holder


@dataclass(frozen=True, slots=True)
class Seen:
    """The card answered; see :class:`gpuwarden.control.states.ScanData`."""

    uuid: str
    holders: tuple[Holder, ...]
    used_bytes: int | None
    total_bytes: int | None
    unexplained_bytes: int | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NotSeen:
    """It didn't, and why; ``unplanned`` where there is no plan yet that says which card it is."""

    uuid: str
    problem: str
    unplanned: bool = False
