import os
from pathlib import Path

from gpuwarden.systemd.former import former_processes

UNIT = "medgemma.slice/medgemma-thermal@0.service"


def group(root: Path, name: str, processes: str) -> Path:
    folder = root / "groups" / name
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text(processes)
    own = root / "cgroup"
    own.write_text(f"0::/{name}\n")
    return own


def test_what_else_is_in_the_units_group_is_a_former_guard(tmp_path: Path) -> None:
    own = group(tmp_path, UNIT, f"41\n{os.getpid()}\n7\n")
    assert former_processes(own, tmp_path / "groups") == [41, 7]


def test_alone_in_its_group_there_is_none(tmp_path: Path) -> None:
    own = group(tmp_path, UNIT, f"{os.getpid()}\n")
    assert former_processes(own, tmp_path / "groups") == []


def test_a_session_is_no_unit_of_ours(tmp_path: Path) -> None:
    own = group(tmp_path, "user.slice/session-1.scope", f"41\n{os.getpid()}\n")
    assert former_processes(own, tmp_path / "groups") == []


def test_without_cgroups_nothing_is_known(tmp_path: Path) -> None:
    assert former_processes(tmp_path / "cgroup", tmp_path) == []
