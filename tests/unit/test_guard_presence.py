# SPDX-License-Identifier: Apache-2.0
import pytest

from gpuwarden.control.states import Holder, ScanData
from gpuwarden.guard.presence import presence_in

GROUP = "/medgemma.slice/medgemma-workers.slice/medgemma-worker@0.service"
GIBIBYTE = 2**30


def holder(**changes: object) -> Holder:
    fields: dict[str, object] = {
        "pid": 4000,
        "start_time_ticks": 1,
        "holder_class": "ours",
        "command": "python3",
        "uid": 990,
        "unit": "medgemma-worker@0.service",
        "control_group": GROUP,
        "worker": 0,
        "vram_bytes": GIBIBYTE,
    }
    return Holder(**(fields | changes))


def scan(*holders: Holder, **changes: object) -> ScanData:
    fields: dict[str, object] = {
        "gpu_index": 0,
        "gpu_uuid": "GPU-0",
        "state": "scanning",
        "scans": 3,
        "holders": list(holders),
    }
    return ScanData(**(fields | changes))


def listed(data: ScanData) -> bool | None:
    presence = presence_in(data, (7, data.scans), 0, GROUP)
    return None if presence is None else presence.listed


NEIGHBOUR = holder(worker=1, unit="medgemma-worker@1.service", control_group="/other")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (scan(holder()), True),
        (scan(holder(control_group=f"{GROUP}/engine", unit="")), True),
        (scan(), False),
        (scan(NEIGHBOUR), False),
        (scan(holder(control_group=f"{GROUP}0", worker=None, unit="")), False),
        (scan(holder(listed=False, mappings=True)), False),
        (scan(holder(holder_class="ours-dead", control_group="/system.slice")), False),
        (scan(holder(control_group="", unit="", worker=None, holder_class="foreign")), None),
        (scan(holder(), problem="no permission"), None),
        (scan(problem="no permission"), None),
        (scan(state="blind"), None),
        (scan(state="released"), None),
    ],
)
def test_what_a_scan_says_of_a_workers_whole_group(data: ScanData, expected: bool | None) -> None:
    assert listed(data) is expected


def test_a_worker_whose_group_is_unknown_is_neither_there_nor_missing() -> None:
    assert presence_in(scan(), (7, 1), 0, "") is None
