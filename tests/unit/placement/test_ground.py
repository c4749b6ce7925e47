# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from gpuwarden.placement.ground import read_ground
from gpuwarden.topology.model import Bounds
from tests.machines import machine, write_sysfs

NOTHING = "AllowedCPUs=\nAllowedMemoryNodes=\n"


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A machine of CPUs 0-7 with cgroups and a systemctl, all below ``tmp_path``."""
    write_sysfs(tmp_path / "sys", machine(2, 4, 1), {})
    (tmp_path / "cgroup").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "sys", tmp_path / "cgroup"


def systemd_says(folder: Path, *blocks: str) -> None:
    program = folder / "systemctl"
    program.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(blocks) + "END\n")
    program.chmod(0o755)


def cpuset(root: Path, group: str, cpus: str) -> None:
    (root / group).mkdir(parents=True, exist_ok=True)
    (root / group / "cpuset.cpus.effective").write_text(cpus)


def test_a_node_that_nobody_restricts_is_whole(roots: tuple[Path, Path]) -> None:
    systemd_says(roots[0].parent, *[f"ControlGroup=/\n{NOTHING}"] * 3)
    ground, doubts = read_ground(*roots)
    assert (ground.host, ground.workers, doubts) == (Bounds(), Bounds(), [])
    assert ground.machine == machine(2, 4, 1)


def test_an_administrators_slice_counts_before_it_is_up(roots: tuple[Path, Path]) -> None:
    workers = "ControlGroup=\nAllowedCPUs=2-3 6\nAllowedMemoryNodes=0\n"
    systemd_says(roots[0].parent, "ControlGroup=/\n", f"ControlGroup=/m\n{NOTHING}", workers)
    ground, _ = read_ground(*roots)
    assert ground.host == Bounds()
    assert ground.workers == Bounds(frozenset({2, 3, 6}), frozenset({0}))


def test_a_container_and_a_slice_bound_the_workers_both(roots: tuple[Path, Path]) -> None:
    cpuset(roots[1], "box", "0-5")
    cpuset(roots[1], "box/m", "4-5")
    systemd_says(
        roots[0].parent,
        f"ControlGroup=/box\n{NOTHING}",
        f"ControlGroup=/box/m\n{NOTHING}",
        "ControlGroup=\nAllowedCPUs=5-7\nAllowedMemoryNodes=\n",
    )
    ground, _ = read_ground(*roots)
    assert ground.host.cpus == frozenset(range(6))
    assert ground.workers.cpus == frozenset({5})


def test_without_systemd_the_kernels_word_holds_and_the_doubt_is_said(
    roots: tuple[Path, Path],
) -> None:
    cpuset(roots[1], "", "0-5")
    (roots[0].parent / "systemctl").write_text("#!/bin/sh\necho gone >&2; exit 1\n")
    (roots[0].parent / "systemctl").chmod(0o755)
    ground, doubts = read_ground(*roots)
    assert ground.host.cpus == frozenset(range(6))
    assert doubts == ["systemd doesn't say what AllowedCPUs= leaves to workers (gone)"]
