"""The disk that jobs lie on."""

import errno
import os
from pathlib import Path

from gpuwarden.gateway.jobs.budget import DiskRoom
from gpuwarden.gateway.jobs.values import JobStoreError, StoreFullError


def disk_room(folder: Path) -> DiskRoom:
    """The file system that jobs lie on."""
    figures = os.statvfs(folder)
    unit = figures.f_frsize
    return DiskRoom(figures.f_bavail * unit, figures.f_blocks * unit, figures.f_favail)


def disk_error(error: OSError) -> JobStoreError:
    """The same in the store's words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFullError("the disk of the job store is full")
    return JobStoreError(f"the job store's disk fails: {error.strerror}")
