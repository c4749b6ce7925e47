# SPDX-License-Identifier: Apache-2.0
"""Which files a process has open, as the kernel lists them; and none that it may open."""

import contextlib
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path


def open_files(pid: int | None = None, name: str = "") -> int:
    """How many; of those that have ``name`` in theirs. Of this process, where none is named."""
    count = 0
    for entry in list(Path(f"/proc/{pid or 'self'}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += name in str(entry.readlink())
    return count


def held_files() -> int:
    """How many this process has open and something of it holds.

    An earlier test's transport that nobody holds is closed whenever the collector comes by: a count
    before it and one behind it differ by what neither has to do with.
    """
    gc.collect()
    return open_files()


@contextlib.contextmanager
def descriptors_used_up() -> Iterator[None]:
    """This process may open nothing more: each attempt ends with EMFILE."""
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
