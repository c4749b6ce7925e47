# SPDX-License-Identifier: Apache-2.0
"""What the disk of the job store says: its room, and its errors in our words."""

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gpuwarden.gateway.jobs.budget import DiskRoom
from gpuwarden.gateway.jobs.database import CLOSED
from gpuwarden.gateway.jobs.values import JobStoreError, MomentaryError, StoreFullError

Outcome = TypeVar("Outcome")

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What this process or the node lacks now; the file is whole, and is read when there is some again.
MOMENTARY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR}
UNCLEAR = {errno.EIO}  # a sector that is gone, or a cable that was loose: some tries tell


def disk_room(folder: Path) -> DiskRoom:
    """The file system that jobs lie on."""
    figures = os.statvfs(folder)
    unit = figures.f_frsize
    return DiskRoom(figures.f_bavail * unit, figures.f_blocks * unit, figures.f_favail)


def translated(error: OSError) -> JobStoreError:
    """The store's error for one of the disk's."""
    if error.errno in FULL:
        return StoreFullError("the disk of the job store is full")
    kind = MomentaryError if error.errno in MOMENTARY else JobStoreError
    return kind(f"the job store's disk fails: {error.strerror}")


def has_lost_it(error: JobStoreError) -> bool:
    """Whether a file can't be read however often it is asked for, by the disk's own word."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno not in MOMENTARY | UNCLEAR


class FileThreads:
    """Threads in which files are read and written beside the event loop."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="jobs-files")
        self._is_closed = False

    async def run(self, work: Callable[[], Outcome]) -> Outcome:
        """Do it there. Raises JobStoreError."""
        try:
            return await self.read(work)
        except FileNotFoundError as error:  # the folder itself is gone
            raise translated(error) from error

    async def read(self, work: Callable[[], Outcome]) -> Outcome:
        """The same with a file that may have been deleted. Raises FileNotFoundError as well."""
        if self._is_closed:
            raise JobStoreError(CLOSED)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise translated(error) from error

    async def close(self) -> None:
        """Finish what was asked for, then close."""
        self._is_closed = True
        await asyncio.to_thread(self._threads.shutdown)
