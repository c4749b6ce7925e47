# SPDX-License-Identifier: Apache-2.0
"""The disks: how requests are scheduled, how XFS is mounted, whether jobs have room."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpuwarden import names
from gpuwarden.doctor.findings import Finding, Question
from gpuwarden.doctor.memory import chosen
from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, Text, absence, folders

JOBS = names.STATE_DIRECTORY / "jobs"
MOUNTS = "/proc/self/mounts"
LEAST_FREE_SHARE = 0.05  # as mke2fs keeps for root: fuller, and a file system begins to fragment
LEAST_LOG_BUFFER_KIBIBYTES = 256  # xfs(5): the largest; article 4: "larger log buffers"
MIB = 2**20
_VIRTUAL_DISKS = ("vd", "xvd")

# Article 4: mq-deadline. The kernel's Documentation/block: "none" adds no work of its own, and is
# the default where a disk has hardware queues (NVMe); BFQ is for desktops and slow disks.
_SCHEDULER = Question(
    "I/O scheduler",
    "mq-deadline, or none on a disk without moving parts",
    "others spend CPU for fairness, or let a model's reading starve behind a backup's writing",
)
_XFS = Question(
    "XFS mount options",
    "noatime, logbsize=256k",
    "each read image would else be a write, and each job waits for small log buffers",
)  # article 4
# [gateway] body_limit_bytes and queue_limit_bytes: what may have to be kept.
_ROOM = Question("disk space", "", "without room a job is refused, or lost half way")


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk and its scheduler, as ``mq-deadline [none]``."""

    name: str
    scheduler: Text
    rotational: bool


@dataclass(frozen=True, slots=True)
class Room:
    """The file system on which jobs lie or will lie."""

    path: str
    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """Disks, mounts, room, and what may have to be kept.

    :ivar largest_bytes: one request; ``queued_bytes``: all that may wait.
    """

    disks: Sequence[Disk] | Absence
    mounts: Text
    room: Room | Absence
    largest_bytes: int
    queued_bytes: int


def read(node: Node) -> StorageFacts:
    """Raises OSError where a disk fails to answer."""
    gateway = node.configuration.gateway if node.configuration else None
    return StorageFacts(
        disks=_disks(node),
        mounts=node.text(MOUNTS),
        room=_room(node),
        largest_bytes=gateway.body_limit_bytes if gateway else 0,
        queued_bytes=gateway.queue_limit_bytes if gateway else 0,
    )


def judge(facts: StorageFacts) -> list[Finding]:
    """Scheduler, XFS, room."""
    return [_scheduler(facts), _xfs(facts), _room_finding(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def _disks(node: Node) -> list[Disk] | Absence:
    """Those with a device behind them: no loops, no memory, no mappings."""
    block = node.path("/sys/block")
    if not block.is_dir():
        return Absence.MISSING
    return [
        Disk(
            name=folder.name,
            scheduler=node.text(f"/sys/block/{folder.name}/queue/scheduler"),
            # A virtual disk says yes by default; what turns, if anything, is the host's to order.
            rotational=node.text(f"/sys/block/{folder.name}/queue/rotational") == "1"
            and not folder.name.startswith(_VIRTUAL_DISKS),
        )
        for folder in folders(block)
        if (folder / "device").exists() and not folder.name.startswith(("sr", "fd"))
    ]


def _room(node: Node) -> Room | Absence:
    """The jobs' folder, or the nearest above it that is there."""
    for path in (JOBS, *JOBS.parents):
        try:
            figures = os.statvfs(node.path(path))
        except OSError as error:
            if absence(error) is Absence.DENIED:
                return Absence.DENIED
            continue
        return Room(
            path=str(path),
            free_bytes=figures.f_bavail * figures.f_frsize,
            total_bytes=figures.f_blocks * figures.f_frsize,
            free_inodes=figures.f_favail,
            total_inodes=figures.f_files,
            read_only=bool(figures.f_flag & os.ST_RDONLY),
        )
    return Absence.MISSING


def _scheduler(facts: StorageFacts) -> Finding:
    if isinstance(facts.disks, Absence):
        return _SCHEDULER.unknown("there is no /sys/block: a container, perhaps")
    known = {
        disk: chosen(disk.scheduler)
        for disk in facts.disks
        if not isinstance(disk.scheduler, Absence)
    }
    if not known:
        return _SCHEDULER.not_applicable("no disk of its own has one")
    found = ", ".join(f"{disk.name}: {name}" for disk, name in known.items())
    odd = [
        disk.name
        for disk, name in known.items()
        if name != "mq-deadline" and (name != "none" or disk.rotational)
    ]
    if odd:
        mend = "; ".join(f"echo mq-deadline > /sys/block/{name}/queue/scheduler" for name in odd)
        return _SCHEDULER.doubtful(found, mend)
    return _SCHEDULER.good(found)


def _xfs(facts: StorageFacts) -> Finding:
    if isinstance(facts.mounts, Absence):
        return _XFS.unknown(f"{MOUNTS} can't be read")
    mounts = [line.split() for line in facts.mounts.splitlines()]
    xfs = {
        words[1]: words[3].split(",") for words in mounts if len(words) > 3 and words[2] == "xfs"
    }
    writable = {path: options for path, options in xfs.items() if "ro" not in options}
    if not writable:
        return _XFS.not_applicable("no XFS is mounted to be written")
    lacking = {path: missing for path, options in writable.items() if (missing := _lacks(options))}
    if not lacking:
        return _XFS.good(", ".join(writable))
    found = "; ".join(f"{path} lacks {', '.join(words)}" for path, words in lacking.items())
    mend = f"mount -o remount,noatime {min(lacking)}  # for good, in fstab: noatime,logbsize=256k"
    return _XFS.doubtful(found, mend)


def _lacks(options: Sequence[str]) -> list[str]:
    """What of the wanted is not among a mount's options."""
    sizes = [match[1] for word in options if (match := re.match(r"^logbsize=(\d{1,6})k$", word))]
    log_kibibytes = int(sizes[-1]) if sizes else 0
    missing = [] if "noatime" in options else ["noatime"]
    return missing + (["logbsize=256k"] if log_kibibytes < LEAST_LOG_BUFFER_KIBIBYTES else [])


def _room_finding(facts: StorageFacts) -> Finding:
    wanted = f"{facts.queued_bytes // MIB} MiB (a full queue) and {LEAST_FREE_SHARE:.0%} free"
    question = _ROOM.about(str(JOBS), wanted)
    room = facts.room
    if isinstance(room, Absence):
        return question.unknown(f"{JOBS}: {room.value}")
    found = (
        f"{room.free_bytes / 2**30:.1f} GiB free of {room.total_bytes / 2**30:.1f} at {room.path}"
    )
    mend = f"df -h {room.path}; du -xh --max-depth=2 /var | sort -h | tail"
    if room.read_only:
        return question.wrong(
            f"{room.path} is mounted read-only", "dmesg | grep -i 'remount\\|error'"
        )
    if room.free_bytes < facts.largest_bytes:
        return question.wrong(found, mend, "the largest request that is let in has no room")
    if room.total_inodes and not room.free_inodes:
        return question.wrong(f"{found}, but no inode", f"df -i {room.path}")
    scarce = room.free_bytes < max(facts.queued_bytes, LEAST_FREE_SHARE * room.total_bytes)
    return question.doubtful(found, mend) if scarce else question.good(found)
