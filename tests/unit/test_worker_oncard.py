# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import Holder, ScanData
from gpuwarden.worker.oncard import is_listed


def holder(**changes: Any) -> Holder:
    whole: dict[str, Any] = {
        "pid": 7,
        "start_time_ticks": 1,
        "holder_class": "ours",
        "command": "vllm",
        "uid": 1,
        "control_group": "/medgemma-worker@2.service",
        "worker": 2,
    }
    return Holder(**(whole | changes))


@pytest.mark.parametrize(
    ("holders", "changes", "found"),
    [
        ([holder()], {}, True),
        ([holder(worker=1)], {}, False),
        ([], {}, False),
        ([holder(holder_class="ours-dead")], {}, False),
        ([holder(listed=False)], {}, False),
        ([holder(worker=None, holder_class="foreign", control_group="")], {}, None),
        ([holder()], {"problem": "outside of the host's PID namespace"}, None),
        ([], {"state": "blind"}, None),
    ],
)
def test_a_worker_is_on_its_card_when_a_complete_scan_lists_it(
    tmp_path: Path, holders: list[Holder], changes: dict[str, Any], found: bool | None
) -> None:
    fields = {"gpu_index": 0, "gpu_uuid": "GPU-0", "state": "scanning", "scans": 1} | changes
    SnapshotWriter(tmp_path / "0.json", "scan").publish(ScanData(holders=holders, **fields))
    assert is_listed(tmp_path / "0.json", 2) is found


def test_what_is_too_old_or_no_scan_at_all_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "0.json"
    assert is_listed(file, 2) is None
    file.write_text("[]")
    assert is_listed(file, 2) is None
    data = ScanData(gpu_index=0, gpu_uuid="GPU-0", state="scanning", scans=1, holders=[holder()])
    SnapshotWriter(file, "scan", valid_milliseconds=-1).publish(data)
    assert is_listed(file, 2) is None
