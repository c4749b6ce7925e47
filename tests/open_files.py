"""Which files a process has open, as the kernel lists them."""

import contextlib
from pathlib import Path


def open_files(pid: int | None = None, name: str = "") -> int:
    """How many; of those that have ``name`` in theirs. Of this process, where none is named."""
    count = 0
    for entry in list(Path(f"/proc/{pid or 'self'}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += name in str(entry.readlink())
    return count
