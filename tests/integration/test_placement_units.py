# SPDX-License-Identifier: Apache-2.0
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gpuwarden.config import Configuration
from gpuwarden.placement.dropins import unit_files
from gpuwarden.placement.plan import Driver, make_plan
from gpuwarden.placement.units import install
from tests.machines import card, machine

SHIPPED = Path(__file__).parents[2] / "packaging" / "systemd"
# The programs are not installed where the tests run; everything else of the units is as shipped.
HARMLESS = "[Service]\nExecStart=\nExecStart=/bin/true\n"


def verify(directory: Path, *units: str) -> str:
    """What systemd objects to in ``units`` of ``directory``; empty is what is wanted."""
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"},
    )
    return result.stderr


def installed(directory: Path, **changes: object) -> list[str]:
    """The shipped units with a plan of two cards beside them; the planned units' names."""
    shutil.copytree(SHIPPED, directory, dirs_exist_ok=True)
    for unit in ("medgemma-worker@.service", "medgemma-thermal@.service"):
        (directory / f"{unit}.d").mkdir()
        (directory / f"{unit}.d" / "10-harmless.conf").write_text(HARMLESS)
    configuration = Configuration.model_validate(changes)
    topology = machine()
    plan = make_plan([card(0, 0), card(1, 1)], topology, configuration, Driver("580", False))
    install(directory, unit_files(plan, configuration, topology))
    workers = [f"medgemma-worker@{worker.number}.service" for worker in plan.workers]
    slices = [f"medgemma-workers-gpu{index}.slice" for index in (0, 1)]
    return [*workers, *slices, "medgemma-thermal.target"]


@pytest.mark.parametrize("policy", ["preferred", "bind", "none"])
def test_systemd_has_nothing_against_the_planned_units(tmp_path: Path, policy: str) -> None:
    units = installed(tmp_path, placement={"memory_policy": policy})
    for unit in units:
        assert verify(tmp_path, unit) == "", unit


def test_systemd_would_object_to_a_directive_that_it_does_not_know(tmp_path: Path) -> None:
    installed(tmp_path)
    path = tmp_path / "medgemma-worker@0.service.d" / "50-placement.conf"
    path.write_text(path.read_text() + "CPUAffinitiy=1\n")
    assert "CPUAffinitiy" in verify(tmp_path, "medgemma-worker@0.service")


def test_a_worker_that_may_use_real_time_is_still_exposed_by_2_of_10_at_most(
    tmp_path: Path,
) -> None:
    restricted = exposure(tmp_path, installed(tmp_path)[0])
    assert not restricted["RestrictRealtime"]  # so the drop-in was looked at


def test_a_worker_with_a_loopback_for_its_server_is_no_more_exposed(tmp_path: Path) -> None:
    unit = installed(tmp_path, workers={"network": "private"})[0]
    assert verify(tmp_path, unit) == ""
    restricted = exposure(tmp_path, unit)
    families = ("AF_INET_INET6", "AF_NETLINK", "AF_UNIX", "AF_PACKET", "OTHER")
    kept_out = [name for name in families if restricted[f"RestrictAddressFamilies_{name}"]]
    assert (kept_out, restricted["PrivateNetwork"]) == (["AF_PACKET", "OTHER"], True)


def exposure(directory: Path, unit: str) -> dict[str, object]:
    """What is restricted in a unit, which has to be exposed by 2 of 10 at most."""
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--json=short", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return {row["json_field"]: row["set"] for row in json.loads(result.stdout)}
