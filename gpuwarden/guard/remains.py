# SPDX-License-Identifier: Apache-2.0
"""What is left of a worker's life after its end, against what it had: pure, and in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpuwarden.control.states import GatewayWorker, Holder
from gpuwarden.guard.kernel import Process

MIB = 1 << 20
# Of what it held: a neighbour may take some meanwhile, and the driver keeps a little for itself.
MEMORY_IS_BACK = 0.9


def held_bytes(
    number: int, holders: Sequence[Holder] | None, told: GatewayWorker | None, is_alone: bool
) -> int | None:
    """What a worker holds of its card's memory: by the scan, else by its own word.

    :param holders: of its card; None while they are not known for certain.
    :param is_alone: no other worker is on its card. Without a scan, that one's memory could not be
        told from its.
    """
    found = [one.vram_bytes for one in holders or () if one.worker == number]
    known = [each for each in found if each is not None]
    if holders is not None and len(known) == len(found):
        return sum(known)  # nothing, where it has lost its card
    return told.vram_reserved_bytes if told is not None and is_alone else None


@dataclass(frozen=True, slots=True)
class Life:
    """A worker while it lives, as last seen.

    :ivar processes: all of its control group.
    :ivar held_bytes: what it holds of its card's memory, by the scan or by its own word; None:
        unknown.
    :ivar used_bytes: what is used of the card's memory altogether.
    """

    number: int
    gpu_index: int
    main_pid: int = 0
    control_group: str = ""
    processes: tuple[Process, ...] = ()
    held_bytes: int | None = None
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Remains:
    """What was seen after its end.

    :ivar left: processes of it that live on.
    :ivar used_bytes: the least that was used of the card's memory since; None: not measured.
    :ivar holders: who holds the card's memory, by the scan.
    """

    life: Life
    left: tuple[Process, ...] = ()
    used_bytes: int | None = None
    holders: Sequence[Holder] = field(default_factory=tuple)

    @property
    def ended(self) -> int:
        """Processes that are gone."""
        return len(set(self.life.processes).difference(self.left))

    @property
    def freed_bytes(self) -> int | None:
        """Memory of the card that came back; None where it was not measured before and after."""
        before = self.life.used_bytes
        if before is None or self.used_bytes is None:
            return None
        return max(0, before - self.used_bytes)

    @property
    def missing_bytes(self) -> int:
        """What it held and what has not come back; 0 where nobody knows."""
        held, freed = self.life.held_bytes, self.freed_bytes
        if held is None or freed is None or freed >= MEMORY_IS_BACK * held:
            return 0
        return held - freed

    @property
    def is_clean(self) -> bool:
        """Whether nothing of it is known to be left."""
        return not self.left and not self.missing_bytes


def figures(remains: Remains) -> str:
    """``3 processes ended, 1,234 MiB freed``, and what is not as it should be."""
    return ", ".join([f"{_processes(remains.ended)} ended", _freed(remains), *_wrong(remains)])


def _freed(remains: Remains) -> str:
    if remains.freed_bytes is None:
        return "the card's memory was not measured"
    return f"{remains.freed_bytes // MIB:,} MiB freed"


def _wrong(remains: Remains) -> list[str]:
    wrong = []
    if remains.left:
        pids = ", ".join(str(process.pid) for process in remains.left)
        wrong.append(f"{_processes(len(remains.left))} can't be ended (PID {pids})")
    if remains.missing_bytes:
        wrong.append(f"{remains.missing_bytes // MIB:,} MiB did not come back{_held_by(remains)}")
    return wrong


def _held_by(remains: Remains) -> str:
    named = [
        f"{one.command} (PID {one.pid}, {one.holder_class})"
        for one in remains.holders
        if one.holder_class != "ours" or one.worker == remains.life.number
    ]
    return f", held by {', '.join(named)}" if named else ""


def _processes(count: int) -> str:
    return f"{count} process" + ("" if count == 1 else "es")
