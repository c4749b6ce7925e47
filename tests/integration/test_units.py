# SPDX-License-Identifier: Apache-2.0
"""Every shipped unit is as shut in as promised."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.worker.engines.transformers.compiler import FOLDER

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
SERVICES = sorted(file.name for file in UNITS.glob("medgemma-*.service"))


def test_there_are_units_to_check() -> None:
    assert "medgemma-guard.service" in SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_by_2_of_10_at_most(name: str) -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", f"./{name}"],
        cwd=UNITS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout.splitlines()[-1] + result.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_dumps_core_or_inherits_a_loaders_environment(name: str) -> None:
    text = (UNITS / name).read_text()
    assert "\nLimitCORE=0\n" in text
    assert "\nUnsetEnvironment=LD_LIBRARY_PATH LD_PRELOAD PYTHONPATH PYTHONHOME\n" in text


@pytest.mark.parametrize("name", ["medgemma-gateway.service", "medgemma-worker@.service"])
def test_nothing_of_a_patient_reaches_a_disk_through_swap_or_a_core(name: str) -> None:
    text = (UNITS / name).read_text()
    for line in ("MemorySwapMax=0", "LimitCORE=0", "CoredumpFilter=0x0"):
        assert f"\n{line}\n" in text


def test_what_a_worker_compiles_is_kept_and_may_run() -> None:
    text = (UNITS / "medgemma-worker@.service").read_text()
    assert "\nCacheDirectory=gpuwarden/worker\n" in text
    assert "\nMemoryDenyWriteExecute=no\n" in text
    assert "NoExecPaths" not in text
    assert "PrivateTmp=yes" in text  # gone with the worker: what is to stay lies elsewhere
    variables = dict(re.findall(r"(\w+)=(\S*)", " ".join(re.findall(r"Environment=(.*)", text))))
    kept = {variables[name] for name in ("CUDA_CACHE_PATH", FOLDER, "TRITON_CACHE_DIR")}
    assert {str(Path(each).parent) for each in kept} == {"/var/cache/gpuwarden/worker"}
    assert len(kept) == 3
    assert (variables["HF_HUB_OFFLINE"], variables["TRANSFORMERS_OFFLINE"]) == ("1", "1")


def test_the_jobs_key_is_never_swapped() -> None:
    assert "\nMemorySwapMax=0\n" in (UNITS / "medgemma-jobs-key.service").read_text()


def test_the_front_door_may_read_what_the_thermal_guards_publish() -> None:
    folders = (UNITS.parent / "tmpfiles" / "gpuwarden.conf").read_text().splitlines()
    modes = {line.split()[1]: line.split()[2] for line in folders if line.startswith("d ")}
    assert {modes["/run/gpuwarden"], modes["/run/gpuwarden/thermal"]} == {"0755"}
    text = (UNITS / "medgemma-gateway.service").read_text()
    assert "InaccessiblePaths=" not in text
    assert "TemporaryFileSystem=" not in text


def test_each_thermal_guard_is_asked_by_root_alone_where_the_others_look_for_it() -> None:
    socket = (UNITS / "medgemma-thermal@.socket").read_text()
    path = str(names.thermal_control_socket(7)).replace("-7", "-%i")
    for line in (
        f"ListenSequentialPacket={path}",
        "SocketMode=0600",
        "FileDescriptorName=control",
        "RemoveOnStop=yes",
        f"PartOf={names.THERMAL_TARGET}",
    ):
        assert f"\n{line}\n" in socket
    service = (UNITS / "medgemma-thermal@.service").read_text()
    for name in ("Wants", "After", "Sockets"):
        assert f"\n{name}=medgemma-thermal@%i.socket\n" in service


def test_the_time_of_day_begins_when_the_documentation_says_and_is_made_up_for() -> None:
    for time_of_day, hour in (("day", "07"), ("night", "19")):
        timer = (UNITS / names.tuning_timer(time_of_day)).read_text()
        for line in (
            f"OnCalendar=*-*-* {hour}:00:00",
            "Persistent=yes",
            f"Unit={names.tuning_unit(time_of_day)}",
            f"PartOf={names.TUNING_UNIT}",
            f"After={names.TUNING_UNIT}",
        ):
            assert f"\n{line}\n" in timer
        assert "[Install]" not in timer  # nothing of it runs until the guard says so


@pytest.mark.parametrize(
    "name",
    [
        "medgemma-thermal@3.socket",
        "medgemma-scan@3.service",
        "medgemma-scan.target",
        "medgemma-guard.socket",
        "medgemma-metrics.socket",
        "medgemma-metrics.service",
        "medgemma-tuning-day.timer",
        "medgemma-tuning-night.timer",
        "medgemma-tuning.service",
    ],
)
def test_systemd_finds_nothing_to_say_of_a_unit(name: str, tmp_path: Path) -> None:
    for file in UNITS.iterdir():
        text = re.sub(r"^(Exec\w+=\W*)/usr/\S+", r"\1/bin/true", file.read_text(), flags=re.M)
        (tmp_path / file.name).write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"./{name}"],
        cwd=tmp_path,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # It returns 0 for unknown keys, too.
    assert (result.returncode, result.stderr) == (0, "")
