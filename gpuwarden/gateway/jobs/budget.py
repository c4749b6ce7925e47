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


@dataclass(frozen=True)
class Held:
    """What jobs have of the disk.

    :param files_bytes: what is there.
    :param unanswered: jobs for whose answers RESULT_BYTES each are kept.
    :param coming_bytes: kept for files that are being received or written.
    :param replaced_bytes: of the files that are there, what goes when those are.
    """

    files_bytes: int
    unanswered: int = 0
    coming_bytes: int = 0
    replaced_bytes: int = 0

    @property
    def promised_bytes(self) -> int:
        """What they will take of the disk yet."""
        return self.unanswered * RESULT_BYTES + self.coming_bytes


def shortage(
    budget: DiskBudget, room: DiskRoom, held: Held, wanted_bytes: int, goes_bytes: int = 0
) -> str | None:
    """Why a file of ``wanted_bytes`` can't be taken; None where it can.

    :param goes_bytes: what goes when it is there: room on the disk it is not, until then.
    """
    taken_bytes = held.files_bytes - held.replaced_bytes + held.promised_bytes
    if taken_bytes - goes_bytes + wanted_bytes > budget.limit_bytes:
        return f"jobs may take {budget.limit_bytes} bytes ([jobs] disk_limit_bytes)"
    least_bytes = budget.free_share * room.total_bytes
    if room.free_bytes - held.promised_bytes - wanted_bytes < least_bytes:
        return (
            f"{budget.free_share:.0%} of the disk are kept free ([jobs] disk_free_share), and of"
            f" the {room.free_bytes} bytes that are free {held.promised_bytes} are promised"
        )
    if 0 < room.free_files < FILES_KEPT_FREE:
        return f"the file system has {room.free_files} files left"
    return None
