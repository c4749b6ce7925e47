# SPDX-License-Identifier: Apache-2.0
"""Simulated cards on which the proof runs, and what it leaves on them."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwarden.control.snapshot import boot_id
from gpuwarden.thermal.originals import Here
from gpuwarden.thermal.originals_store import OriginalsStore, Places, driver_load
from tests.integration.simulation import Caller, Node

ROOT = Path(__file__).parents[3]
GPU = "gpu:0"
RUN = """\
import sys
from pathlib import Path
from gpuwarden import names
root = Path(sys.argv[1])
names.RUN_DIRECTORY = root / "run"
names.PLAN_FILE = root / "plan.json"
names.THERMAL_ORIGINALS_DIRECTORY = root / "var"
names.CONFIG_FILE = root / "gpuwarden.toml"
names.CONFIG_DIRECTORY = root / "conf.d"
names.ACCEPTED_CONFIGURATION_FILE = root / "none.json"
from gpuwarden.cli.main import main
sys.exit(main(["doctor", *sys.argv[2:]]))
"""
DOWN = "echo inactive"


@dataclass
class Bench:
    """A node's folders, its simulated cards, and a systemctl that answers as told."""

    root: Path
    node: Node
    environment: dict[str, str] = field(default_factory=dict)

    def systemctl(self, script: str) -> None:
        path = self.root / "bin" / "systemctl"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", RUN, str(self.root), *words]

    def doctor(
        self, *words: str, prefix: tuple[str, ...] = (), **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*prefix, *self.command("--prove-actuators", "0", *words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            env=self.environment,
            **({"stdin": subprocess.DEVNULL} | options),
        )

    def proof(self, *words: str) -> tuple[int, Any]:
        finished = self.doctor("--yes", "--json", *words)
        assert finished.stdout, finished.stderr
        return finished.returncode, json.loads(finished.stdout)

    @property
    def uuid(self) -> str:
        return str(self.node.do("show")[0]["uuid"])

    @property
    def store(self) -> OriginalsStore:
        return OriginalsStore(self.uuid, Places(self.root / "var", self.root / "run" / "thermal"))

    @property
    def here(self) -> Here:
        return Here(self.uuid, boot_id(), driver_load())


def limit_of(nvml: Caller) -> int:
    milliwatts = nvml("nvmlDeviceGetPowerManagementLimit", GPU)
    assert isinstance(milliwatts, int)
    return milliwatts


def sm_lock(bench: Bench) -> Any:
    return bench.node.do("show")[0]["sm_lock_mhz"]


def verdicts(protocol: Any) -> list[tuple[str, str, str]]:
    return [(each["actuator"], each["step"], each["verdict"]) for each in protocol["steps"]]
