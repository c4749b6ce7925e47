# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from gpuwarden.scan.evidence import Evidence
from tests.unit.scan.evidences import WORKER_GROUP
from tests.unit.scan.procfs import OTHER_NAMESPACE, START, UID, ProcFolder


@pytest.fixture
def proc(tmp_path: Path) -> ProcFolder:
    return ProcFolder(tmp_path)


def test_a_process_is_read(proc: ProcFolder) -> None:
    proc.add(50, command="a ) b (c", group=f"0::{WORKER_GROUP}", environment=b"A=1\0")
    found = proc.reader().read(50)
    assert (found.pid, found.start_time_ticks, found.state) == (50, START, "S")
    assert (found.command, found.uid, found.control_group) == ("a ) b (c", UID, WORKER_GROUP)
    assert (found.tag, found.unit_runs, found.foreign_namespace) == (None, False, False)


def test_one_that_is_not_there_is_gone(proc: ProcFolder) -> None:
    assert proc.reader().read(51) == Evidence(51)


def test_a_worker_is_up_while_systemd_says_so(proc: ProcFolder) -> None:
    proc.add(50, group=f"0::{WORKER_GROUP}")
    proc.run_unit("medgemma-worker@0.service")
    assert proc.reader().read(50).unit_runs


@pytest.mark.parametrize(
    ("environment", "tag"),
    [
        (b"HOME=/\0GPUWARDEN_WORKER=3\0X=1\0", 3),
        (b"GPUWARDEN_WORKER=3", 3),
        (b"NOT_GPUWARDEN_WORKER=3\0", None),
        (b"GPUWARDEN_WORKER=\0", None),
        (b"GPUWARDEN_WORKER=-1\0", None),
        (b"GPUWARDEN_WORKER=" + b"9" * 5000, None),
        (b"VLLM::EngineCore" + b"\0" * 500, None),  # who writes his title over it
        (b"", None),
    ],
)
def test_the_tag_is_read_and_nothing_else(
    proc: ProcFolder, environment: bytes, tag: int | None
) -> None:
    proc.add(50, environment=environment)
    assert proc.reader().read(50).tag == tag


@pytest.mark.parametrize(
    ("states", "state"),
    [("S", "S"), ("Z", "Z"), ("ZS", "S"), ("ZZ", "Z"), ("SD", "D"), ("ZD", "D"), ("RS", "S")],
)
def test_the_state_is_that_of_all_threads(proc: ProcFolder, states: str, state: str) -> None:
    proc.add(50, states=states)
    assert proc.reader().read(50).state == state


def test_stuck_is_who_sleeps_in_the_kernel_twice_in_a_row(proc: ProcFolder) -> None:
    proc.add(50, states="D")
    reader = proc.reader()
    stuck = []
    for _ in range(3):
        reader.begin()
        stuck.append(reader.read(50).stuck)
    reader.begin()  # a look at which it wasn't asked for
    reader.begin()
    stuck.append(reader.read(50).stuck)
    assert stuck == [False, True, True, False]


def test_who_hangs_in_the_kernel_is_not_asked_for_what_would_hang_too(proc: ProcFolder) -> None:
    proc.add(50, states="SD", environment=b"GPUWARDEN_WORKER=0\0")
    assert proc.reader().read(50).tag is None


def test_a_container_is_known_by_its_namespace(proc: ProcFolder) -> None:
    proc.add(50, namespace=OTHER_NAMESPACE)
    assert proc.reader().read(50).foreign_namespace


@pytest.mark.parametrize(
    ("group", "wanted"),
    [
        ("0::/a.slice/b.service (deleted)", "/a.slice/b.service"),
        ("3:cpu:/x\n1:name=systemd:/a.slice/b.service", "/a.slice/b.service"),
        ("3:cpu:/x", ""),
    ],
)
def test_the_control_group_is_systemds(proc: ProcFolder, group: str, wanted: str) -> None:
    proc.add(50, group=group)
    assert proc.reader().read(50).control_group == wanted


def test_from_another_namespace_not_everybody_shows(proc: ProcFolder) -> None:
    assert proc.reader().shortcoming() == ""
    (proc.root / "self/ns/pid").unlink()
    (proc.root / "self/ns/pid").symlink_to(OTHER_NAMESPACE)
    assert "PID namespace of its own" in proc.reader().shortcoming()


def test_without_the_right_to_look_nobody_is_taken_for_a_stranger(proc: ProcFolder) -> None:
    proc.allow("0000000000000004")
    assert "CAP_SYS_PTRACE" in proc.reader().shortcoming()


def test_everybody_is_listed(proc: ProcFolder) -> None:
    proc.add(50)
    proc.add(60)
    assert sorted(proc.reader().pids()) == [50, 60]
