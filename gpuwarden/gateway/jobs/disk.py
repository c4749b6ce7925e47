# SPDX-License-Identifier: Apache-2.0
"""What the disk of the job store says: its room, and its errors in our words."""

import errno
import os
from pathlib import Path

from gpuwarden.gateway.jobs.budget import DiskRoom
from gpuwarden.gateway.jobs.values import JobStoreError, StoreFullError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
LOST = {errno.EIO, errno.EUCLEAN}  # of what will not come back, however often it is asked for


def disk_room(folder: Path) -> DiskRoom:
    """The file system that jobs lie on."""
    figures = os.statvfs(folder)
    unit = figures.f_frsize
    return DiskRoom(figures.f_bavail * unit, figures.f_blocks * unit, figures.f_favail)


def translated(error: OSError) -> JobStoreError:
    """The store's error for one of the disk's."""
    if error.errno in FULL:
        return StoreFullError("the disk of the job store is full")
    return JobStoreError(f"the job store's disk fails: {error.strerror}")


def has_lost_it(error: JobStoreError) -> bool:
    """Whether a file can't be read now or later, by the disk's own word."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in LOST
