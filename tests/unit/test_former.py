# SPDX-License-Identifier: Apache-2.0
"""What the next life of a service finds of the former one."""

import os
from pathlib import Path

from gpuwarden.systemd.former import former_processes, outlasting

UNIT = "medgemma-worker@0.service"


def group(folder: Path, *pids: int, unit: str = UNIT) -> Path:
    """A control group of a unit with these processes; where a process reads its own."""
    path = folder / "medgemma.slice" / unit
    path.mkdir(parents=True)
    (path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    (folder / "cgroup").write_text(f"0::/medgemma.slice/{unit}\n")
    return folder / "cgroup"


def test_whoever_else_is_in_the_unit_is_named(tmp_path: Path) -> None:
    own = group(tmp_path, 17, os.getpid(), 4)
    assert former_processes(UNIT, own, tmp_path) == [4, 17]
    assert former_processes(group_file=own, groups=tmp_path) == [4, 17]


def test_alone_in_its_unit_there_is_none(tmp_path: Path) -> None:
    assert former_processes(UNIT, group(tmp_path, os.getpid()), tmp_path) == []


def test_a_session_is_no_unit_of_ours(tmp_path: Path) -> None:
    own = group(tmp_path, 17, os.getpid(), unit="session-1.scope")
    assert former_processes(group_file=own, groups=tmp_path) == []


def test_a_process_outside_the_unit_knows_of_none(tmp_path: Path) -> None:
    own = group(tmp_path, 17)
    assert former_processes("medgemma-worker@1.service", own, tmp_path) == []
    assert former_processes(UNIT, tmp_path / "nothing", tmp_path) == []


def test_those_that_are_on_their_way_out_are_waited_for() -> None:
    looks = [[7], [7], []]
    assert outlasting(lambda: looks.pop(0), 10) == []
    assert outlasting(lambda: [7], 0) == [7]
