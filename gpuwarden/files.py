# SPDX-License-Identifier: Apache-2.0
"""Files that a command leaves where its caller wants them."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Put a file at ``path`` in one step: nobody sees a part of it, and an old one is replaced.

    The temporary file's name can't be guessed, since the folder may be open to others (/tmp).

    :raises OSError: the folder is not there, or can't be written.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), 0o666 & ~_umask())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    current = os.umask(0o077)
    os.umask(current)
    return current
