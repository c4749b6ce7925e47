# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gpuwarden.config import ConfigurationError, load_configuration
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import PlanData
from gpuwarden.placement.dropins import REVISION_VARIABLE, with_revisions
from gpuwarden.placement.plan import Driver, make_plan
from tests.machines import card, machine, write_sysfs
from tests.waiting import wait_until

HOST = """\
import fcntl, json, os, sys
descriptor = int(sys.argv[sys.argv.index("--settings-fd") + 1])
try:
    os.write(descriptor, b"x")
    writable = True
except OSError:
    writable = False
print(json.dumps({
    "settings": json.load(os.fdopen(os.dup(descriptor))),
    "writable": writable,
    "isolated": sys.flags.isolated,
    "environment": dict(os.environ),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    "settings_descriptor": descriptor,
    "pid": os.getpid(),
}))
"""
LAUNCH = """\
import sys
from pathlib import Path
from gpuwarden.config import load_configuration
from gpuwarden.placement.launch import Places, main
root = Path(sys.argv[1])
load = lambda: load_configuration(root / "gpuwarden.toml", root / "conf.d")
places = Places(load, root / "plan.json", root / "worker-host", root / "sys", 0.5)
raise SystemExit(main(sys.argv[2:], places))
"""


class Site:
    """A node with a plan of one card and two workers, and a worker host that tells all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "worker-host").write_text(HOST)
        write_sysfs(root / "sys", machine(), {})
        self.configure()
        self.plan = self.make_plan()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(root / "notify"))
        self.notify.setblocking(False)

    def configure(self, **workers: object) -> None:
        """Write the configuration, and plan for it, if it can be read."""
        values = {"workers_per_gpu": 2, "python": sys.executable, **workers}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        (self.root / "gpuwarden.toml").write_text("[workers]\n" + "\n".join(lines) + "\n")
        with contextlib.suppress(ConfigurationError):
            self.plan = self.make_plan()

    def make_plan(self) -> PlanData:
        configuration = load_configuration(self.root / "gpuwarden.toml", None)
        plan = make_plan([card(0)], machine(), configuration, Driver("580", simulated=False))
        plan = with_revisions(plan, configuration, machine())
        SnapshotWriter(self.root / "plan.json", "placement").publish(plan)
        return plan

    def revision(self, *argv: str) -> str:
        """What systemd gives the worker by its drop-in; that of worker 0 where there is none."""
        numbers = {str(worker.number): worker.revision for worker in self.plan.workers}
        return numbers.get("".join(argv[:1]), numbers["0"])

    def launch(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", LAUNCH, str(self.root), *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(self.root / "notify"),
                REVISION_VARIABLE: self.revision(*argv),
                **environment,
            },
        )

    def status(self) -> str:
        return self.notify.recv(4096).decode("ascii")

    def refusal(self, *argv: str, **environment: str) -> str:
        """What a launch that must fail says, the same to systemd and to the journal."""
        result = self.launch(*(argv or ("0",)), **environment)
        assert result.returncode == 78
        assert len(result.stderr.splitlines()) == 1
        status = self.status()
        assert status.startswith("STATUS=cannot start: ")
        assert status.removeprefix("STATUS=")[:60] in result.stderr
        return result.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_worker_gets_its_settings_and_nothing_else(site: Site) -> None:
    site.configure(engine="site.model:Medgemma", engine_path=[str(site.root)], max_batch=8)
    result = site.launch("1", LD_LIBRARY_PATH="/x", PYTHONHOME="", HOME="/home/x")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["settings"] == {
        "number": 1,
        "engine": "site.model:Medgemma",
        "engine_path": [str(site.root)],
        "model": "site.model:Medgemma",
        "options": {},
        "gpu_uuid": "GPU-00000000",
        "gpu_index": 0,
        "max_batch": 8,
        "preprocess_processes": 2,
        "preprocess_memory_bytes": 4294967296,
        "max_pixels": 67108864,
        "drain_seconds": 30.0,
        "execution_timeout_seconds": 30.0,
        "load_timeout_seconds": 600.0,
        "dispatch_socket": "/run/gpuwarden/dispatch.sock",
        "inference_priority": "fifo:10",
        "log_level": "info",
    }
    assert not told["writable"]
    assert told["isolated"] == 1
    assert told["environment"]["HOME"] == "/home/x"
    assert "NOTIFY_SOCKET" in told["environment"]
    for name in ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME"):
        assert name not in told["environment"]
    settings, listing = told["settings_descriptor"], told["descriptors"][-1]
    assert set(told["descriptors"]) <= {0, 1, 2, settings, listing}


def test_an_interpreter_that_is_not_there_is_named(site: Site) -> None:
    site.configure(python="/opt/medgemma/bin/python")
    assert "/opt/medgemma/bin/python: no such file" in site.refusal()


def test_a_file_that_is_no_program_is_named(site: Site) -> None:
    site.configure(python=str(site.root / "plan.json"))
    assert "not a program" in site.refusal()


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("echo 3 8", "Python 3.8, but workers need 3.9 or newer"),
        ("echo moo", "does not answer like a Python interpreter"),
        ("echo no module >&2; exit 5", "ended with status 5 and said: no module"),
    ],
)
def test_an_interpreter_that_cannot_do_is_told_from_one_that_can(
    site: Site, script: str, fault: str
) -> None:
    program = site.root / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    site.configure(python=str(program))
    assert fault in site.refusal()


def test_a_program_for_another_machine_is_named(site: Site) -> None:
    program = site.root / "python"
    program.write_bytes(b"\x7fELF garbage")
    program.chmod(0o755)
    site.configure(python=str(program))
    assert "can't be executed" in site.refusal()


def test_an_engine_path_that_is_not_there_is_named(site: Site) -> None:
    site.configure(engine_path=["/opt/absent"])
    assert "engine_path names /opt/absent" in site.refusal()


def test_a_bad_configuration_is_quoted(site: Site) -> None:
    site.configure(engine="no such engine")
    assert "no such engine" in site.refusal()


def test_a_worker_that_is_not_planned_is_told_which_are(site: Site) -> None:
    assert "no worker 7; planned: 0, 1" in site.refusal("7")


def test_a_missing_plan_names_the_unit_that_makes_it(site: Site) -> None:
    (site.root / "plan.json").unlink()
    assert "systemctl reload-or-restart medgemma-numa.service" in site.refusal()


def test_a_plan_of_another_boot_is_refused(site: Site) -> None:
    path = site.root / "plan.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"boot_id": "another"}))
    assert "of another boot" in site.refusal()


def test_a_plan_for_another_configuration_is_refused(site: Site) -> None:
    file = site.root / "gpuwarden.toml"
    file.write_text(file.read_text() + "max_batch = 7\n")
    assert "made for another configuration" in site.refusal()


def test_a_plan_for_other_cpus_is_refused(site: Site) -> None:
    (site.root / "sys/devices/system/cpu/online").write_text("0-14\n")
    said = site.refusal()
    assert "made for node 0: CPUs 0-3,8-11; node 1: CPUs 4-7,12-15" in said
    assert "now there is node 0: CPUs 0-3,8-11; node 1: CPUs 4-7,12-14" in said
    assert "systemctl reload-or-restart medgemma-numa.service" in said


def test_a_plan_that_is_being_made_is_waited_for(site: Site) -> None:
    plan = (site.root / "plan.json").read_bytes()
    file = site.root / "gpuwarden.toml"
    settings = file.read_text() + "max_batch = 7\n"
    file.write_text(settings)
    renewed = site.make_plan()
    ready = (site.root / "plan.json").read_bytes()
    (site.root / "plan.json").write_bytes(plan)
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH.replace("0.5)", "60.0)"), str(site.root), "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, REVISION_VARIABLE: renewed.workers[0].revision},
    )
    wait_until(lambda: "launch" in Path(f"/proc/{process.pid}/cmdline").read_text())
    (site.root / "plan.json").write_bytes(ready)
    output, _ = process.communicate(timeout=60)
    assert json.loads(output)["settings"]["max_batch"] == 7


def test_what_systemd_has_not_read_yet_is_refused(site: Site) -> None:
    said = site.refusal("0", **{REVISION_VARIABLE: "of-a-former-plan"})
    assert "systemd has set it up for placement of-a-former-plan" in said
    assert "systemctl daemon-reload" in said
    assert "placement (none)" in site.refusal("0", **{REVISION_VARIABLE: ""})


@pytest.mark.parametrize("argv", [["x"], ["0", "1"], ["-1"]])
def test_what_is_no_number_is_refused(site: Site, argv: list[str]) -> None:
    assert "the worker's number" in site.refusal(*argv)
