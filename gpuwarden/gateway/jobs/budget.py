# SPDX-License-Identifier: Apache-2.0
"""How much of the disk jobs may take. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DiskBudget:
    """What the configuration allows.

    :param limit_bytes: all bodies and results together.
    :param free_share: of the file system, left alone.
    """

    limit_bytes: int
    free_share: float


@dataclass(frozen=True)
class DiskRoom:
    """The file system as it is."""

    free_bytes: int
    total_bytes: int
    free_files: int


FILES_KEPT_FREE = 1024  # inodes; a file system without any reports none at all, and that is no lack
RESULT_BYTES = 64 << 10  # kept for each job that has none yet: an accepted job's answer must fit


def shortage(budget: DiskBudget, room: DiskRoom, held_bytes: int, wanted_bytes: int) -> str | None:
    """Why a file of ``wanted_bytes`` can't be taken; None where it can.

    :param held_bytes: what is on disk or promised already.
    """
    if held_bytes + wanted_bytes > budget.limit_bytes:
        return f"jobs may take {budget.limit_bytes} bytes ([jobs] disk_limit_bytes)"
    least_bytes = budget.free_share * room.total_bytes
    if room.free_bytes - wanted_bytes < least_bytes:
        return (
            f"{budget.free_share:.0%} of the disk are kept free ([jobs] disk_free_share),"
            f" and {room.free_bytes} bytes are"
        )
    if 0 < room.free_files < FILES_KEPT_FREE:
        return f"the file system has {room.free_files} files left"
    return None
