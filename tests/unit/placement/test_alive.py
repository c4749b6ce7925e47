# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from gpuwarden.placement.alive import read_alive

GROUP = "medgemma.slice/medgemma-workers.slice"


def group(root: Path, name: str, *, populated: bool) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "cgroup.events").write_text(f"populated {int(populated)}\nfrozen 0\n")


def test_what_runs_is_told_with_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "systemctl"
    program.write_text('#!/bin/sh\necho "$@" >&2\necho ExecMainStartTimestampMonotonic=77\n')
    program.chmod(0o755)
    busy, idle = f"{GROUP}/medgemma-workers-gpu0.slice", f"{GROUP}/medgemma-workers-gpu1.slice"
    group(tmp_path, busy, populated=True)
    group(tmp_path, idle, populated=False)
    group(tmp_path, f"{busy}/medgemma-worker@12.service", populated=True)
    group(tmp_path, f"{busy}/medgemma-worker@13.service", populated=False)
    group(tmp_path, f"{busy}/medgemma-worker@x.service", populated=True)
    alive = read_alive(tmp_path)
    assert alive.workers == {12: 77}
    assert alive.slices == {"medgemma-workers-gpu0.slice"}


def test_nothing_runs_before_the_first_start(tmp_path: Path) -> None:
    alive = read_alive(tmp_path)
    assert (alive.workers, alive.slices) == ({}, frozenset())
