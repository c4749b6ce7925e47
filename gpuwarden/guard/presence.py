# SPDX-License-Identifier: Apache-2.0
"""Whether a worker is in its card's list: pure, over one scan."""

from dataclasses import dataclass

from gpuwarden.control.states import ScanData
from gpuwarden.names import worker_unit


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a complete scan has any process of a worker in the card's list.

    :ivar scan: which scan.
    """

    scan: tuple[int, int]
    listed: bool


def presence_in(
    scan: ScanData, identity: tuple[int, int], number: int, control_group: str
) -> Presence | None:
    """Whether any process of a worker's whole cgroup is in the card's compute list.

    None: unknown, as long as the scan is incomplete or a listed process can't be told from ours.
    """
    if scan.state != "scanning" or scan.problem or not control_group:
        return None
    listed = [each for each in scan.holders if each.listed]
    for each in listed:
        inside = f"{each.control_group}/".startswith(f"{control_group}/")
        ours = each.holder_class == "ours"
        if inside or (ours and (each.worker == number or each.unit == worker_unit(number))):
            return Presence(identity, listed=True)
    if any(not each.control_group for each in listed):
        return None
    return Presence(identity, listed=False)
