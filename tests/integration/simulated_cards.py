"""The simulator's daemon and library in a folder, and the node's services beside it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpuwarden.control.snapshot import SnapshotError, read_snapshot
from gpuwarden.control.states import PlanData, ThermalData
from gpuwarden.simulator import cli
from tests.machines import machine, write_sysfs
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
ADDRESSES = ("0000:10:00.0", "0000:80:00.0")
CARDS = {
    "cards": [
        {"preset": "H200", "pci_address": ADDRESSES[0]},
        {"preset": "T4", "pci_address": ADDRESSES[1]},
    ]
}
SIMULATOR = "import sys; from gpuwarden.simulator.service import main; sys.exit(main(sys.argv[1:]))"
PLACEMENT = """\
import sys
from pathlib import Path
from gpuwarden.config import load_configuration
from gpuwarden.placement.service import Places, run
root = Path(sys.argv[1])
load = lambda: load_configuration(root / "gpuwarden.toml", root / "conf.d")
places = Places(load, root / "units", root / "plan.json", root / "cards.json", root / "sys")
sys.exit(run(places, reload_units=lambda: None))
"""
THERMAL = """\
import sys
from pathlib import Path
from gpuwarden.config import load_configuration
from gpuwarden.thermal.service import Places, main
root = Path(sys.argv[1])
load = lambda: load_configuration(root / "gpuwarden.toml", root / "conf.d")
places = Places(load, root / "plan.json", lambda index: root / f"thermal-{index}.json")
sys.exit(main(sys.argv[2:], places))
"""


def build_library(folder: Path) -> Path:
    """The simulated libnvidia-ml.so.1, compiled."""
    source = REPOSITORY / "gpuwarden" / "simulator" / "nvml"
    subprocess.run(
        ["make", "--silent", "-C", str(source), f"BUILD={folder}"], check=True, timeout=120
    )
    return folder / "libnvidia-ml.so.1"


class SimulatedNode:
    """Two cards, an H200 on NUMA node 0 and a T4 on node 1."""

    def __init__(self, root: Path, library: Path) -> None:
        self.root = root
        self.simulator = root / "sim"
        self.environment = {
            **os.environ,
            "GPUWARDEN_NVML_LIBRARY": str(library),
            "GPUWARDEN_SIM_STATE": str(self.simulator / "state"),
        }
        (root / "units").mkdir()
        (root / "cards-of-the-simulator.json").write_text(json.dumps(CARDS))
        write_sysfs(root / "sys", machine(2, 2, 1), {ADDRESSES[0]: 0, ADDRESSES[1]: 1})

    @contextmanager
    def powered(self) -> Iterator[None]:
        """The simulator at work."""
        cards = self.root / "cards-of-the-simulator.json"
        arguments = ["--cards", str(cards), "--run-directory", str(self.simulator)]
        with self._running(SIMULATOR, *arguments) as process:
            wait_until(lambda: (self.simulator / "control.sock").exists() or process.poll())
            yield

    def ask(self, **request: Any) -> dict[str, Any]:
        """What gpuwarden-sim would ask of the simulator."""
        answer = cli.ask(self.simulator / "control.sock", request)
        assert answer["ok"], answer
        return answer

    def place(self) -> PlanData:
        """Run the placement service once; its plan."""
        subprocess.run(
            [sys.executable, "-c", PLACEMENT, str(self.root)],
            check=True,
            timeout=60,
            cwd=REPOSITORY,
            env=self.environment,
        )
        return read_snapshot(self.root / "plan.json", PlanData).data

    @contextmanager
    def guarded(self, gpu_index: int) -> Iterator["subprocess.Popen[bytes]"]:
        """A card's thermal guard at work; it must end cleanly on SIGTERM."""
        with self._running(THERMAL, str(self.root), str(gpu_index)) as process:
            yield process
        assert process.returncode == 0

    def thermal(self, gpu_index: int, wanted: Callable[[ThermalData], bool]) -> ThermalData:
        """The card's published state, once it is as wanted."""

        def published() -> ThermalData | None:
            try:
                path = self.root / f"thermal-{gpu_index}.json"
                data = read_snapshot(path, ThermalData).data
            except SnapshotError:
                return None
            return data if wanted(data) else None

        return wait_until(published)

    @contextmanager
    def _running(self, program: str, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *argv], cwd=REPOSITORY, env=self.environment
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)
