# SPDX-License-Identifier: Apache-2.0
"""What scanners and thermal guards publish of two cards, without either."""

from pathlib import Path
from typing import Any

import pytest

from gpuwarden import names
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import Holder, HolderClass, ScanData, ThermalData
from gpuwarden.guard.processes import read_process
from gpuwarden.values import ThermalState

LASTING_MILLISECONDS = 600_000
GIBIBYTE = 2**30


class ScannedCards:
    """Their published states, below a folder that the guard is shown."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._scans = dict.fromkeys((0, 1), 0)
        self._writers: dict[int, SnapshotWriter] = {}
        monkeypatch.setattr(names, "scan_snapshot_file", self.file_of)
        monkeypatch.setattr(names, "thermal_snapshot_file", lambda gpu: folder / f"{gpu}.json")

    def file_of(self, gpu: int) -> Path:
        return self._folder / f"scan-{gpu}.json"

    def scan(self, gpu: int, *holders: Holder, **changes: Any) -> None:
        """The next scan of a card."""
        self._scans[gpu] += 1
        fields: dict[str, Any] = {
            "gpu_index": gpu,
            "gpu_uuid": f"GPU-0000000{gpu}",
            "state": "scanning",
            "scans": self._scans[gpu],
            "holders": list(holders),
        }
        writer = self._writers.setdefault(
            gpu, SnapshotWriter(self.file_of(gpu), "scan", LASTING_MILLISECONDS)
        )
        writer.publish(ScanData(**(fields | changes)))

    def vanish(self, gpu: int) -> None:
        self.file_of(gpu).unlink()

    def use(self, gpu: int, used_bytes: int | None) -> None:
        """The card's memory in use from now on, as its thermal guard says."""
        data = ThermalData(
            index=gpu,
            uuid=f"GPU-0000000{gpu}",
            name="NVIDIA H200",
            pci_address="",
            numa_node=0,
            vram_used_bytes=used_bytes,
            state=ThermalState.NORMAL,
            since=1,
        )
        path = names.thermal_snapshot_file(gpu)
        SnapshotWriter(path, "thermal", LASTING_MILLISECONDS).publish(data)


def holder(pid: int, holder_class: HolderClass, **changes: Any) -> Holder:
    """A process that really is, as a scan would tell of it."""
    process = read_process(pid)
    assert process is not None
    fields: dict[str, Any] = {
        "pid": pid,
        "start_time_ticks": process.identity.start_time_ticks,
        "holder_class": holder_class,
        "command": "sleep",
        "uid": 0,
        "control_group": process.control_group,
        "worker": 0 if holder_class in ("ours", "ours-dead") else None,
        "vram_bytes": GIBIBYTE,
    }
    return Holder(**(fields | changes))
