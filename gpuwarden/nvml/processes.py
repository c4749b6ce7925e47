# SPDX-License-Identifier: Apache-2.0
"""Who has a context on one card and how much of its memory is in use, as the driver tells it.

Asking takes a lock that whoever works on the card needs, and up to 5 ms for the graphics list
(MangoHud#2104): every few seconds is often enough.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpuwarden.nvml import calls
from gpuwarden.nvml.calls import Handle
from gpuwarden.nvml.errors import (
    CardLostError,
    DriverMissingError,
    NoPermissionError,
    NotSupportedError,
    NvmlError,
)

COMPUTE, GRAPHICS, MPS = "compute", "graphics", "mps"
_FUNCTIONS = {
    COMPUTE: "nvmlDeviceGetComputeRunningProcesses",
    GRAPHICS: "nvmlDeviceGetGraphicsRunningProcesses",
    MPS: "nvmlDeviceGetMPSComputeRunningProcesses",
}
_INSUFFICIENT_SIZE = 7
MOST_TRIES = 5  # processes were started between the question for their number and that for them
_MEMORY_V2 = 0x02000028  # nvml.h, nvmlMemory_v2: what the driver keeps for itself is told apart
# The first releases of this branch fill the third version's structures by another layout, so that
# every entry but the first is nonsense (go-nvml#75); from 535.98 on it is right again.
_ODD_BRANCH, _MENDED_IN = 535, 98


@dataclass(frozen=True, slots=True)
class CardProcess:
    """A process with a context on the card; ``vram_bytes`` is None where the driver can't tell.

    :ivar kinds: the lists that it is in.
    """

    pid: int
    vram_bytes: int | None
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class CardUse:
    """Everybody whom the driver lists, and the memory in use.

    :ivar used_bytes: without what the driver keeps for itself; None where it doesn't say.
    :ivar problem: why somebody may be missing; empty where nobody is.
    """

    processes: tuple[CardProcess, ...]
    used_bytes: int | None
    total_bytes: int | None
    problem: str = ""


class ProcessLister:
    """Lists one card's processes; belongs to the thread and the session that opened it.

    :param instances: the handles of its MIG instances.
    """

    def __init__(
        self, where: str, handle: Handle, instances: Sequence[Handle], driver_version: str | None
    ) -> None:
        self._where = where
        self._handle = handle
        self._instances = tuple(instances)
        self._versions = ("_v2",) if _is_odd(driver_version) else ("_v3", "_v2")

    def look(self) -> CardUse:
        """Processes and memory now.

        :raises NvmlError: the card or driver is gone, or doesn't list compute processes at all.
        """
        before, total = self._memory()
        processes, problem = self._processes()
        after, total = self._memory()
        # Whoever allocates meanwhile is in one of the two alone, and not yet in the list.
        used = None if before is None or after is None else min(before, after)
        return CardUse(processes, used, total, problem)

    def _processes(self) -> tuple[tuple[CardProcess, ...], str]:
        inside = [self._of(handle) for handle in self._instances]
        try:
            whole = self._of(self._handle)
        except NoPermissionError as error:
            # A divided card's own list is for administrators; its instances' are not.
            if not inside:
                return (), str(error)
            whole = {}
        merged: dict[int, CardProcess] = {}
        for found in inside:
            for pid, process in found.items():
                merged[pid] = _added(merged.get(pid), process)
        return tuple((whole | merged).values()), ""

    def _of(self, handle: Handle) -> dict[int, CardProcess]:
        """Everybody in the lists of one handle; a process may be in several, with all it holds."""
        found: dict[int, CardProcess] = {}
        for kind in _FUNCTIONS:
            for pid, vram_bytes in self._list(kind, handle):
                known = found.get(pid, CardProcess(pid, None, frozenset()))
                sizes = [size for size in (known.vram_bytes, vram_bytes) if size is not None]
                found[pid] = CardProcess(pid, max(sizes, default=None), known.kinds | {kind})
        return found

    def _list(self, kind: str, handle: Handle) -> Iterable[tuple[int, int | None]]:
        for version in self._versions:
            try:
                entries = self._tried(f"{_FUNCTIONS[kind]}{version}", handle)
            except NotSupportedError:
                continue
            return [(int(entry.pid), _size(entry.usedGpuMemory)) for entry in entries]
        if kind == COMPUTE:
            raise NotSupportedError("the driver lists no processes of this card", self._where)
        return []  # a card without graphics, a driver from before MPS was told

    def _tried(self, function: str, handle: Handle) -> Any:
        for attempt in range(MOST_TRIES):
            try:
                return calls.call(self._where, function, handle)
            except NvmlError as error:
                if error.code != _INSUFFICIENT_SIZE or attempt == MOST_TRIES - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def _memory(self) -> tuple[int | None, int | None]:
        function = "nvmlDeviceGetMemoryInfo"
        try:
            memory = calls.call(self._where, function, self._handle, _MEMORY_V2)
            return int(memory.used), int(memory.total)
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError:
            return None, self._total()

    def _total(self) -> int | None:
        """By the older call, which counts what the driver keeps as used."""
        try:
            return int(calls.call(self._where, "nvmlDeviceGetMemoryInfo", self._handle).total)
        except (CardLostError, DriverMissingError):
            raise
        except NvmlError:
            return None


def instances_of(where: str, handle: Handle) -> list[Handle]:
    """The handles of a divided card's MIG instances; none where it isn't divided."""
    try:
        current, _ = calls.call(where, "nvmlDeviceGetMigMode", handle)
        most = int(calls.call(where, "nvmlDeviceGetMaxMigDeviceCount", handle)) if current else 0
    except NvmlError:  # a card that can't be divided
        return []
    found = []
    for index in range(most):
        try:
            found.append(calls.call(where, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index))
        except NvmlError:  # a slot that nobody has made an instance in
            continue
    return found


def _added(known: CardProcess | None, more: CardProcess) -> CardProcess:
    """One process in two instances holds the sum."""
    if known is None:
        return more
    sizes = (known.vram_bytes, more.vram_bytes)
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return CardProcess(more.pid, total, known.kinds | more.kinds)


def _size(value: Any) -> int | None:
    return None if value is None else int(value)


def _is_odd(driver_version: str | None) -> bool:
    try:
        branch, release = (int(part) for part in (driver_version or "").split(".")[:2])
    except ValueError:
        return False
    return branch == _ODD_BRANCH and release < _MENDED_IN
