# SPDX-License-Identifier: Apache-2.0
"""Where images and snapshots are kept, under which names, and who may change them."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.node.channel import check_output

PROJECT = Path(__file__).resolve().parents[2]
CACHE = PROJECT / "build" / "node"
COMPLETE = "complete"  # the file that says that an entry was built to its end


def digest(parts: Iterable[str | bytes]) -> str:
    """A short name for ``parts``: the same only where every part is the same."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]


def say(message: str) -> None:
    """Tells the person who waits what takes the time."""
    print(f"node: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds the lock ``name`` against every other process that builds or starts nodes here."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process builds {name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def entry(kind: str, group: str, key: str, variant: str, build: Callable[[Path], None]) -> Path:
    """The folder that ``build`` fills, made once for each ``variant`` (may be empty) of ``key``.

    What ``group`` has under other keys is out of date and removed.  A folder whose build was cut
    short is built again.
    """
    folder = CACHE / kind / group / key / variant
    if (folder / COMPLETE).exists():
        return folder
    with locked(f"{kind}-{group}"):
        if (folder / COMPLETE).exists():
            return folder
        remove_stale(CACHE / kind / group, key)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        build(folder)
        (folder / COMPLETE).touch()
    return folder


def remove_stale(group: Path, key: str) -> None:
    """Removes what ``group`` holds under other keys, unless a node still runs on it."""
    if group.is_dir():
        for folder in group.iterdir():
            if folder.name != key and not in_use(folder):
                shutil.rmtree(folder)


def in_use(folder: Path) -> bool:
    """Whether an entry in ``folder`` is held by ``using``."""
    for complete in folder.rglob(COMPLETE):
        with complete.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


@contextlib.contextmanager
def using(*folders: Path) -> Iterator[None]:
    """Keeps entries from being removed while a node runs on them."""
    with contextlib.ExitStack() as stack:
        for folder in folders:
            file = stack.enter_context((folder / COMPLETE).open())
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def copy_sparse(source: Path, target: Path) -> None:
    """Copies a file, holes as holes."""
    check_output("cp", "--sparse=always", "--reflink=auto", str(source), str(target))


def qemu_version() -> str:
    """Which QEMU this machine has: its snapshots are its own."""
    return check_output("qemu-system-x86_64", "--version")


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A folder for one running node, removed after it; also those that killed runs left."""
    runs = CACHE / "run"
    runs.mkdir(parents=True, exist_ok=True)
    remove_abandoned(runs)
    folder = Path(tempfile.mkdtemp(dir=runs))
    with (folder / "owner").open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(runs: Path) -> None:
    """Removes the workspaces whose owner has ended."""
    for folder in runs.iterdir():
        owner = folder / "owner"
        with contextlib.suppress(OSError):
            # Between its making and its locking a workspace is young, and its owner alive.
            if time.time() - folder.stat().st_mtime < 60:
                continue
            descriptor = os.open(owner, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
