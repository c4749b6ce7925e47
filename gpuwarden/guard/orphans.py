# SPDX-License-Identifier: Apache-2.0
"""Who holds a card's memory and is none of a running worker, and who of them is to be ended: pure.

Only what a dead worker of ours has left is ever ended by itself. Everybody else is shown, and
ended when somebody asks for that one process.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from gpuwarden.control.states import Holder, HolderClass, Orphan, ScanData

REAP_SCANS = 3  # the issue's: in which the very same process was seen as ours and dead ...
REAP_APART_SECONDS = 30.0  # ... and the least time from each of these to the next
TELL_SCANS = 2  # whoever is gone by the next scan is no news

# The driver's own services hold memory by right, and ending one takes others' work with it.
BY_RIGHT: frozenset[HolderClass] = frozenset({"mps", "monitoring"})
NO_SIGNAL_REACHES: dict[HolderClass, str] = {
    "defunct": "it is dead already, and what it held comes free when its parent takes leave of it",
    "uninterruptible": "it hangs in the driver, where no signal reaches it: the card needs a "
    "reset, or the node a reboot",
}

Key = tuple[int, int, int]  # card, PID, start time


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is remembered of one process on one card.

    :ivar holder: as last seen.
    :ivar scan: which scan that was.
    :ivar since: when it was first seen, in microseconds since 1970.
    :ivar scans_seen: in a row.
    :ivar dead_scans: complete scans, far enough apart, in which it was ours and dead, and between
        which none said otherwise.
    """

    gpu: int
    holder: Holder
    scan: tuple[int, int]
    since: int
    scans_seen: int = 1
    dead_scans: int = 0
    dead_at_seconds: float = 0.0
    is_told: bool = False

    @property
    def key(self) -> Key:
        """What no other process has."""
        return self.gpu, self.holder.pid, self.holder.start_time_ticks


Sightings = Mapping[Key, Sighting]


def is_orphan(holder: Holder) -> bool:
    """Whether it is shown as one."""
    return holder.holder_class != "ours" and holder.holder_class not in BY_RIGHT


def next_sightings(
    before: Sightings,
    gpu: int,
    scan: ScanData | None,
    identity: tuple[int, int],
    now_seconds: float,
    unix_microseconds: int,
) -> dict[Key, Sighting]:
    """The sightings of one card after a look at its scan.

    :param scan: None where it can't be believed: then nobody's count goes on. It doesn't begin
        anew either: on a busy node a scan is late now and then, and what was seen was seen.
    """
    mine = {key: each for key, each in before.items() if key[0] == gpu}
    if scan is None or scan.state != "scanning":
        return {key: _doubted(each) for key, each in mine.items()}
    found = {}
    for holder in filter(is_orphan, scan.holders):
        new = Sighting(gpu, holder, identity, unix_microseconds)
        old = mine.get(new.key)
        if old is not None and old.scan == identity:
            found[new.key] = old
            continue
        if old is not None:
            new = replace(old, holder=holder, scan=identity, scans_seen=old.scans_seen + 1)
        found[new.key] = _counted(new, is_complete=not scan.problem, now_seconds=now_seconds)
    if scan.problem:  # what is missing in it may be there for all that
        listed = {(gpu, each.pid, each.start_time_ticks) for each in scan.holders}
        found |= {key: _doubted(each) for key, each in mine.items() if key not in listed}
    return found


def _doubted(sighting: Sighting) -> Sighting:
    return replace(sighting, scans_seen=0)


def _counted(sighting: Sighting, *, is_complete: bool, now_seconds: float) -> Sighting:
    if sighting.holder.holder_class != "ours-dead":
        return replace(sighting, dead_scans=0)
    if not is_complete:
        return sighting
    if sighting.dead_scans and now_seconds - sighting.dead_at_seconds < REAP_APART_SECONDS:
        return sighting
    return replace(sighting, dead_scans=sighting.dead_scans + 1, dead_at_seconds=now_seconds)


def to_reap(sightings: Sightings) -> list[Sighting]:
    """Those that are to be ended without anybody's asking."""
    return [each for each in sightings.values() if each.dead_scans >= REAP_SCANS]


def to_tell(sightings: Sightings) -> list[Sighting]:
    """Those that nobody was told of."""
    return [
        each for each in sightings.values() if each.scans_seen >= TELL_SCANS and not each.is_told
    ]


def orphans(sightings: Iterable[Sighting]) -> list[Orphan]:
    """As they are published: only those of whom the last look at their card knows."""
    return [
        Orphan(
            pid=each.holder.pid,
            start_time_ticks=each.holder.start_time_ticks,
            gpu=each.gpu,
            orphan_class=each.holder.holder_class,
            command=each.holder.command,
            vram_bytes=each.holder.vram_bytes,
            unit=each.holder.unit,
            since=each.since,
            scans_seen=each.scans_seen,
        )
        for each in sorted(sightings, key=lambda each: each.key)
        if each.scans_seen
    ]


def left_by(scan: ScanData, worker: int) -> list[Holder]:
    """What a worker that is down has left on a card: also what was alive when it was scanned."""
    return [
        each
        for each in scan.holders
        if each.worker == worker and each.holder_class in ("ours", "ours-dead")
    ]


# --- one process, on request


@dataclass(frozen=True, slots=True)
class Held:
    """A process that is to be ended, on every card where it holds memory."""

    holder: Holder
    gpus: tuple[int, ...]


class NotToBeReapedError(Exception):
    """Why a process is not ended; ``is_unknown`` where nobody knows whether it may be."""

    def __init__(self, text: str, *, is_unknown: bool = False) -> None:
        super().__init__(text)
        self.is_unknown = is_unknown


def chosen(
    pid: int, scans: Mapping[int, ScanData], doubts: Mapping[int, str], listed: Collection[int]
) -> Held:
    """The process that somebody wants to be ended, if it may be.

    :param scans: those that are fresh, by card.
    :param doubts: by card, why its scan is not known or not complete.
    :param listed: the PIDs of the orphans that are published now.
    :raises NotToBeReapedError: it isn't one of them.
    """
    found = {gpu: each for gpu, scan in scans.items() for each in scan.holders if each.pid == pid}
    if not found:
        unknown = [f"GPU {gpu}: {why}" for gpu, why in sorted(doubts.items()) if why]
        if unknown:
            text = f"whether PID {pid} holds memory of a card is unknown: {'; '.join(unknown)}"
            raise NotToBeReapedError(text, is_unknown=True)
        raise NotToBeReapedError(f"PID {pid} holds no memory of a card")
    holder = next(iter(found.values()))
    is_other_part = holder.unit.startswith("medgemma-") and holder.holder_class != "ours-dead"
    if holder.holder_class == "ours" or is_other_part:
        whose = holder.unit or f"worker {holder.worker}"
        raise NotToBeReapedError(f"PID {pid} is of {whose}, which runs: restart that")
    if holder.holder_class in BY_RIGHT:
        raise NotToBeReapedError(
            f"PID {pid} ({holder.command}) is a service of the driver's ({holder.holder_class}): "
            "stop it by its own means"
        )
    if holder.holder_class in NO_SIGNAL_REACHES:
        why = NO_SIGNAL_REACHES[holder.holder_class]
        raise NotToBeReapedError(f"PID {pid} ({holder.command}) can't be killed: {why}")
    if pid not in listed:
        text = f"PID {pid} is not in the list of orphans yet"
        raise NotToBeReapedError(text, is_unknown=True)
    return Held(holder, tuple(sorted(found)))
