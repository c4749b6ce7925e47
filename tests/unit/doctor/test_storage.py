# SPDX-License-Identifier: Apache-2.0
"""Disks, XFS, and room for jobs."""

from dataclasses import replace

import pytest

from gpuwarden.doctor import storage
from gpuwarden.doctor.findings import Verdict
from gpuwarden.doctor.places import Absence
from tests.unit.doctor.machine import Made, by_name, verdicts

GIB = 2**30
ROOM = storage.Room("/var", 50 * GIB, 100 * GIB, 1000, 2000, read_only=False)
FACTS = storage.StorageFacts([], "", ROOM, largest_bytes=GIB // 8, queued_bytes=GIB // 2)


def disk(made: Made, name: str, scheduler: str, rotational: str = "0") -> None:
    made.write(f"/sys/block/{name}/queue/scheduler", f"{scheduler}\n")
    made.write(f"/sys/block/{name}/queue/rotational", f"{rotational}\n")
    if not name.startswith("loop"):
        (made.root / f"sys/block/{name}/device").mkdir()


def test_fast_disks_may_go_without_a_scheduler_and_slow_ones_may_not(made: Made) -> None:
    disk(made, "nvme0n1", "[none] mq-deadline")
    disk(made, "sda", "none [mq-deadline]", "1")
    disk(made, "vda", "[none] mq-deadline", "1")
    disk(made, "loop0", "[bfq]")
    assert verdicts(storage.examine(made.node()))["I/O scheduler"] is Verdict.GOOD
    disk(made, "sdb", "[none] mq-deadline", "1")
    disk(made, "sdc", "mq-deadline [bfq]")
    finding = by_name(storage.examine(made.node()))["I/O scheduler"]
    assert finding.verdict is Verdict.DOUBTFUL
    assert finding.mend == (
        "echo mq-deadline > /sys/block/sdb/queue/scheduler; "
        "echo mq-deadline > /sys/block/sdc/queue/scheduler"
    )


def test_a_machine_without_disks_or_without_sysfs(made: Made) -> None:
    assert verdicts(storage.examine(made.node()))["I/O scheduler"] is Verdict.UNKNOWN
    (made.root / "sys/block").mkdir(parents=True)
    assert verdicts(storage.examine(made.node()))["I/O scheduler"] is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("options", "verdict", "found"),
    [
        ("rw,noatime,logbufs=8,logbsize=256k", Verdict.GOOD, "/srv"),
        ("rw,relatime,logbsize=256k", Verdict.DOUBTFUL, "/srv lacks noatime"),
        ("rw,relatime,logbsize=32k", Verdict.DOUBTFUL, "/srv lacks noatime, logbsize=256k"),
        ("ro,relatime", Verdict.NOT_APPLICABLE, "no XFS is mounted to be written"),
    ],
)
def test_xfs_is_mounted_to_be_written_seldom(
    made: Made, options: str, verdict: Verdict, found: str
) -> None:
    made.write(
        "/proc/self/mounts", f"/dev/sda1 / ext4 rw,relatime 0 0\n/dev/sdb1 /srv xfs {options} 0 0\n"
    )
    finding = by_name(storage.examine(made.node()))["XFS mount options"]
    assert (finding.verdict, finding.found) == (verdict, found)


@pytest.mark.parametrize(
    ("room", "verdict"),
    [
        (ROOM, Verdict.GOOD),
        (replace(ROOM, free_bytes=4 * GIB), Verdict.DOUBTFUL),
        (replace(ROOM, total_bytes=GIB, free_bytes=GIB // 4), Verdict.DOUBTFUL),
        (replace(ROOM, free_bytes=GIB // 16), Verdict.WRONG),
        (replace(ROOM, free_inodes=0), Verdict.WRONG),
        (replace(ROOM, free_inodes=0, total_inodes=0), Verdict.GOOD),  # btrfs counts none
        (replace(ROOM, read_only=True), Verdict.WRONG),
        (Absence.DENIED, Verdict.UNKNOWN),
    ],
)
def test_room_for_jobs(room: storage.Room | Absence, verdict: Verdict) -> None:
    (finding,) = (
        each for each in storage.judge(replace(FACTS, room=room)) if "disk space" in each.name
    )
    assert finding.verdict is verdict


def test_the_room_of_a_folder_that_is_not_there_yet_is_its_parents(made: Made) -> None:
    facts = storage.read(made.node())
    assert isinstance(facts.room, storage.Room)
    assert facts.room.path == "/"
    (made.root / "var/lib/gpuwarden/jobs").mkdir(parents=True)
    facts = storage.read(made.node())
    assert isinstance(facts.room, storage.Room)
    assert facts.room.path == "/var/lib/gpuwarden/jobs"
