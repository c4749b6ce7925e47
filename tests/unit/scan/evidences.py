# SPDX-License-Identifier: Apache-2.0
"""Processes as they are seen, for tests."""

from dataclasses import replace

from gpuwarden.nvml.processes import COMPUTE, GRAPHICS, MPS
from gpuwarden.scan.evidence import Customs, Evidence, Sight

GIB = 2**30
WORKER_UID, OPERATOR_UID = 998, 1000
WORKERS = "/medgemma.slice/medgemma-workers.slice/medgemma-workers-gpu0.slice"
WORKER_GROUP = f"{WORKERS}/medgemma-worker@0.service"
SESSION = "/user.slice/user-1000.slice/session-3.scope"
CUSTOMS = Customs(frozenset({"nvidia-smi", "nv-hostengine"}), WORKER_UID)
LISTED = Sight(GIB, frozenset({COMPUTE}))
DRAWING = Sight(GIB, frozenset({GRAPHICS}))
SHARED = Sight(GIB, frozenset({COMPUTE, MPS}))
OPENED = Sight(mappings=True)

STRANGER = Evidence(
    pid=4242,
    start_time_ticks=77,
    state="S",
    command="python3",
    uid=OPERATOR_UID,
    control_group=SESSION,
)
WORKER = replace(
    STRANGER, uid=WORKER_UID, control_group=WORKER_GROUP, tag=0, unit_runs=True, pid=4243
)
