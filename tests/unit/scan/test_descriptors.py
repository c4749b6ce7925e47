# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from gpuwarden.scan.descriptors import openers
from tests.unit.scan.procfs import ProcFolder

DEVICE = "/dev/nvidia0"
MAP = f"7f0000000000-7f0000200000 rw-s 00000000 00:05 412                    {DEVICE}\n"


@pytest.fixture
def proc(tmp_path: Path) -> ProcFolder:
    return ProcFolder(tmp_path)


def found(proc: ProcFolder, *pids: int) -> list[int]:
    return openers(DEVICE, pids, proc.root)


def test_who_has_the_card_open_or_mapped_is_found(proc: ProcFolder) -> None:
    proc.add(50, opened=["/dev/null", DEVICE])
    proc.add(60, opened=["/dev/nvidia1", "/dev/nvidiactl"])
    proc.add(70, maps=MAP)
    proc.add(80, maps=MAP.replace(DEVICE, "/dev/nvidia01"))
    proc.add(90, opened=[f"{DEVICE} (deleted)"])
    assert found(proc, 50, 60, 70, 80, 90, 404) == [50, 70, 90]


def test_descriptors_of_a_process_whose_first_thread_has_ended_are_found(proc: ProcFolder) -> None:
    """An H100 shows it so: the leader is a zombie without descriptors, its threads hold on."""
    proc.add(50, states="ZS", opened=[DEVICE])
    assert found(proc, 50) == [50]


def test_the_maps_of_who_hangs_in_the_kernel_are_left_alone(proc: ProcFolder) -> None:
    proc.add(50, states="SD", maps=MAP)
    assert found(proc, 50) == []
