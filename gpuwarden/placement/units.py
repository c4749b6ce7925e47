"""Puts the plan's files in systemd's unit directory, and takes those away that it no longer has."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from gpuwarden.control.snapshot import write_atomically
from gpuwarden.placement.dropins import OWNED_PATTERNS


class UnitError(Exception):
    """systemd's files can't be written; the text says which and why."""


def install(directory: Path, files: Mapping[PurePosixPath, str]) -> list[str]:
    """Make ``directory`` hold exactly ``files`` of ours.

    :returns: the paths that changed, came or went; empty where all was as it should be.
    :raises UnitError: a file can't be written or removed.
    """
    changed: list[str] = []
    try:
        for relative, text in files.items():
            if _write_if_different(directory / relative, text.encode()):
                changed.append(str(relative))
        for path in stale(directory, files):
            path.unlink()
            if path.parent != directory and not any(path.parent.iterdir()):
                path.parent.rmdir()
            changed.append(str(path.relative_to(directory)))
    except OSError as error:
        raise UnitError(f"{error.filename}: {error.strerror}") from error
    return changed


def stale(directory: Path, files: Mapping[PurePosixPath, str]) -> list[Path]:
    """The files of ours in ``directory`` that are not in ``files``."""
    owned = {path for pattern in OWNED_PATTERNS for path in directory.glob(pattern)}
    return sorted(owned - {directory / relative for relative in files})


def _write_if_different(path: Path, content: bytes) -> bool:
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return True
