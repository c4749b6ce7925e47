# SPDX-License-Identifier: Apache-2.0
"""The simulator's daemon and library in a folder, and the node's services beside it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpuwarden.control import socket as control_socket
from gpuwarden.control.snapshot import SnapshotError, read_snapshot
from gpuwarden.control.states import PlanData, ScanData, ThermalData
from gpuwarden.simulator import cli
from tests.machines import machine, write_sysfs
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
ANSWER_SECONDS = 10.0
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
import logging, os, sys
from pathlib import Path
from gpuwarden.config import load_configuration
from gpuwarden.systemd.journal import JournalHandler
from gpuwarden.thermal import service
from gpuwarden.thermal.originals_store import Places as Originals
root, listening = Path(sys.argv[1]), int(sys.argv[2])
os.dup2(listening, 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="control")
service.set_up_logging = lambda level: logging.basicConfig(
    level="INFO", handlers=[JournalHandler(root / "journal")], format="%(message)s", force=True
)
places = service.Places(
    lambda: load_configuration(root / "gpuwarden.toml", root / "conf.d"),
    root / "plan.json",
    lambda index: root / f"thermal-{index}.json",
    lambda index: root / f"thermal-{index}.lease.json",
    Originals(root / "var", root / "run"),
)
sys.exit(service.main(sys.argv[3:], places))
"""

SCAN = """\
import logging, os, pwd, sys
from pathlib import Path
from gpuwarden.config import load_configuration
from gpuwarden.scan import service
from gpuwarden.systemd.journal import JournalHandler
root = Path(sys.argv[1])
service.set_up_logging = lambda level: logging.basicConfig(
    level="INFO", handlers=[JournalHandler(root / "journal")], format="%(message)s", force=True
)
places = service.Places(
    lambda: load_configuration(root / "gpuwarden.toml", root / "conf.d"),
    root / "gpuwarden.toml",
    root / "plan.json",
    lambda index: root / f"scan-{index}.json",
    lambda index: root / f"thermal-{index}.lease.json",
    root / "running-units",
    pwd.getpwuid(os.getuid()).pw_name,
    os.readlink("/proc/self/ns/pid"),
)
sys.exit(service.main(sys.argv[2:], places))
"""

RESTORE = """\
import sys
from pathlib import Path
from gpuwarden.config import load_configuration
from gpuwarden.thermal import restore_cards, service
from gpuwarden.thermal.originals_store import Places as Originals
root, restore_cards.CARD_SECONDS = Path(sys.argv[1]), float(sys.argv[2])
places = service.Places(
    load=lambda: load_configuration(root / "gpuwarden.toml", root / "conf.d"),
    plan_file=root / "plan.json",
    originals=Originals(root / "var", root / "run"),
)
sys.exit(restore_cards.main(sys.argv[3:], places))
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
        self.guards: dict[int, int] = {}
        self.scans: dict[int, int] = {}
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

    def configure_cards(self, *entries: dict[str, str]) -> None:
        """Other cards than the usual two; before it is powered."""
        text = json.dumps({"cards": list(entries)})
        (self.root / "cards-of-the-simulator.json").write_text(text)

    def forget_node_of(self, address: str) -> None:
        """Have the kernel not know where a card is."""
        (self.root / "sys/bus/pci/devices" / address / "numa_node").write_text("-1\n")

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
        with self.guard_process(gpu_index) as process:
            yield process
        assert process.returncode == 0

    @contextmanager
    def guard_process(self, gpu_index: int) -> Iterator["subprocess.Popen[bytes]"]:
        """A card's thermal guard at work, which the test may kill; told to end at last."""
        with self._listening(gpu_index) as control:
            number = control.fileno()
            arguments = (str(self.root), str(number), str(gpu_index))
            with self._running(THERMAL, *arguments, pass_fds=(number,)) as process:
                self.guards[gpu_index] = process.pid
                yield process

    @contextmanager
    def scanned(self, gpu_index: int) -> Iterator["subprocess.Popen[bytes]"]:
        """A card's scan at work; it must end cleanly on SIGTERM."""
        with self._running(SCAN, str(self.root), str(gpu_index)) as process:
            self.scans[gpu_index] = process.pid
            yield process
        assert process.returncode == 0

    def scan(self, gpu_index: int, wanted: Callable[[ScanData], bool]) -> ScanData:
        """What the card's last scan has published, once it is as wanted."""

        def published() -> ScanData | None:
            try:
                snapshot = read_snapshot(self.root / f"scan-{gpu_index}.json", ScanData)
            except SnapshotError:
                return None
            is_of_this_life = snapshot.pid == self.scans[gpu_index]
            return snapshot.data if is_of_this_life and wanted(snapshot.data) else None

        return wait_until(published)

    def restore_cards(
        self, *argv: str, card_seconds: float = 10.0
    ) -> "subprocess.CompletedProcess[str]":
        """What the package's removal runs."""
        return subprocess.run(
            [sys.executable, "-c", RESTORE, str(self.root), str(card_seconds), *argv],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask_guard(self, gpu_index: int, request: str, **fields: Any) -> dict[str, Any]:
        """What a thermal guard answers on its control socket. Raises ControlError."""
        path = self.root / f"thermal-{gpu_index}.sock"
        return control_socket.ask(path, {"request": request, **fields}, ANSWER_SECONDS)

    def configure(self, text: str) -> None:
        """Write the node's configuration."""
        (self.root / "gpuwarden.toml").write_text(text)

    @contextmanager
    def _listening(self, gpu_index: int) -> Iterator[socket.socket]:
        """The control socket as systemd makes it."""
        path = self.root / f"thermal-{gpu_index}.sock"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.bind(str(path))
            control.listen(8)
            yield control

    def thermal(self, gpu_index: int, wanted: Callable[[ThermalData], bool]) -> ThermalData:
        """What the card's last guard has published, once it is as wanted."""

        def published() -> ThermalData | None:
            try:
                snapshot = read_snapshot(self.root / f"thermal-{gpu_index}.json", ThermalData)
            except SnapshotError:
                return None
            is_of_this_life = snapshot.pid == self.guards[gpu_index]
            return snapshot.data if is_of_this_life and wanted(snapshot.data) else None

        return wait_until(published)

    @contextmanager
    def _running(
        self, program: str, *argv: str, pass_fds: tuple[int, ...] = ()
    ) -> Iterator["subprocess.Popen[bytes]"]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *argv],
            cwd=REPOSITORY,
            env=self.environment,
            pass_fds=pass_fds,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)
