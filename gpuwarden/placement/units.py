# SPDX-License-Identifier: Apache-2.0
"""Puts the plan's files in systemd's unit directory, and takes those away that it no longer has."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from gpuwarden.control.snapshot import write_atomically
from gpuwarden.placement.dropins import HOST_DROP_IN_NAME, HOST_UNITS, OWNED_PATTERNS, host_text


class UnitError(Exception):
    """systemd's files can't be written; the text says which and why."""


def read_installed(directory: Path) -> dict[PurePosixPath, str]:
    """The files of ours in ``directory``. Raises UnitError."""
    try:
        return {
            PurePosixPath(path.relative_to(directory)): path.read_text(encoding="utf-8")
            for path in [*_ours(directory), *_host_files(directory)]
        }
    except OSError as error:
        raise UnitError(f"{error.filename}: {error.strerror}") from error


def install(directory: Path, files: Mapping[PurePosixPath, str]) -> list[str]:
    """Make ``directory`` hold exactly ``files`` of ours; what holds the host is not taken away.

    :returns: the paths that changed, came or went; empty where all was as it should be.
    :raises UnitError: a file can't be written or removed.
    """
    changed: list[str] = []
    try:
        for relative, text in files.items():
            if _write_if_different(directory / relative, text.encode()):
                changed.append(str(relative))
        changed += _remove(directory, stale(directory, files))
    except OSError as error:
        raise UnitError(f"{error.filename}: {error.strerror}") from error
    return changed


def stale(directory: Path, files: Mapping[PurePosixPath, str]) -> list[Path]:
    """The files of ours in ``directory`` that are not in ``files``."""
    wanted = {directory / relative for relative in files}
    return [path for path in _ours(directory) if path not in wanted]


def holds_host(directory: Path) -> bool:
    """Whether the rest of the host is kept on the housekeeping CPUs."""
    return bool(_host_files(directory))


def widen_host(directory: Path, all_cpus: str) -> None:
    """Give the rest of the host ``all_cpus``, in the files that hold it. Raises UnitError.

    The kernel refuses to take a cpuset away from a group with processes in it, and systemd, told to
    forget it, leaves it as it is: it has to be made wide first.
    """
    try:
        for path in _host_files(directory):
            section = HOST_UNITS[path.parent.name.removesuffix(".d")]
            _write_if_different(path, host_text(section, all_cpus).encode())
    except OSError as error:
        raise UnitError(f"{error.filename}: {error.strerror}") from error


def remove_host_files(directory: Path) -> list[str]:
    """Take those files away; returns their paths. Raises UnitError."""
    try:
        return _remove(directory, _host_files(directory))
    except OSError as error:
        raise UnitError(f"{error.filename}: {error.strerror}") from error


def _ours(directory: Path) -> list[Path]:
    return sorted({path for pattern in OWNED_PATTERNS for path in directory.glob(pattern)})


def _host_files(directory: Path) -> list[Path]:
    paths = [directory / f"{unit}.d" / HOST_DROP_IN_NAME for unit in HOST_UNITS]
    return [path for path in paths if path.exists()]


def _remove(directory: Path, paths: Iterable[Path]) -> list[str]:
    removed = []
    for path in paths:
        path.unlink()
        if path.parent != directory and not any(path.parent.iterdir()):
            path.parent.rmdir()
        removed.append(str(path.relative_to(directory)))
    return removed


def _write_if_different(path: Path, content: bytes) -> bool:
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return True
