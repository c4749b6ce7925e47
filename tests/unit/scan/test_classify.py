# SPDX-License-Identifier: Apache-2.0
"""Whose a process is: the table of classes, and what keeps a bystander out of ``ours-dead``."""

from dataclasses import replace

import pytest

from gpuwarden.control.states import HolderClass
from gpuwarden.scan.classify import (
    RULES,
    classify,
    holder,
    is_daemon_of_ours,
    unit_of,
    worker_of,
)
from gpuwarden.scan.evidence import Customs, Evidence, Sight
from tests.unit.scan.evidences import (
    CUSTOMS,
    DRAWING,
    GIB,
    LISTED,
    OPENED,
    OPERATOR_UID,
    SHARED,
    STRANGER,
    WORKER,
    WORKER_GROUP,
    WORKER_UID,
    WORKERS,
)

DOCKER = f"/system.slice/docker-{'a' * 64}.scope"
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice/cri-containerd-b.scope"
LEFT = replace(WORKER, control_group="/system.slice/cron.service", unit_runs=False)

TABLE: list[tuple[str, Evidence, Sight, HolderClass]] = [
    ("a process that has ended, and is still listed", Evidence(7), LISTED, "defunct"),
    ("a zombie", replace(STRANGER, state="Z"), LISTED, "defunct"),
    ("a zombie of a worker that runs", replace(WORKER, state="Z"), LISTED, "defunct"),
    ("a worker's process", WORKER, LISTED, "ours"),
    ("a worker's that waits for a disk", replace(WORKER, state="D", stuck=True), LISTED, "ours"),
    ("a worker's under MPS", WORKER, SHARED, "ours"),
    ("a worker's in a namespace", replace(WORKER, foreign_namespace=True), LISTED, "ours"),
    ("a child of its, one group down", replace(WORKER, control_group=f"{WORKER_GROUP}/x"), LISTED,
     "ours"),
    ("a worker's without its tag", replace(WORKER, tag=None), LISTED, "ours"),
    ("stuck in the kernel", replace(STRANGER, state="D", stuck=True), LISTED, "uninterruptible"),
    ("a dead worker's, stuck", replace(LEFT, state="D", stuck=True), LISTED, "uninterruptible"),
    ("one moment in the kernel", replace(STRANGER, state="D"), LISTED, "foreign"),
    ("the MPS daemon", replace(STRANGER, command="nvidia-cuda-mps"), LISTED, "mps"),
    ("a client of MPS", STRANGER, SHARED, "mps"),
    ("a dead worker's, a client of MPS", LEFT, SHARED, "mps"),
    ("one that watches", replace(STRANGER, command="nvidia-smi"), LISTED, "monitoring"),
    ("in Docker", replace(STRANGER, control_group=DOCKER), LISTED, "container"),
    ("in a pod", replace(STRANGER, control_group=POD), LISTED, "container"),
    ("by Podman", replace(STRANGER, control_group="/machine.slice/libpod-1.scope"), LISTED,
     "container"),
    ("in a PID namespace", replace(STRANGER, foreign_namespace=True), LISTED, "container"),
    ("tagged, and in Docker", replace(LEFT, control_group=DOCKER), LISTED, "container"),
    ("in the unit of a worker that is down", replace(WORKER, unit_runs=False), LISTED, "ours-dead"),
    ("tagged, and moved elsewhere", LEFT, LISTED, "ours-dead"),
    ("tagged, moved, and only found by what it has open", LEFT, OPENED, "ours-dead"),
    ("an administrator with a worker's environment", replace(STRANGER, tag=0), LISTED, "foreign"),
    ("root with a worker's environment", replace(LEFT, uid=0), LISTED, "foreign"),
    ("of the workers' user, and without a tag", replace(LEFT, tag=None), LISTED, "foreign"),
    ("an X server", replace(STRANGER, command="Xorg"), LISTED, "desktop"),
    ("something that draws", replace(STRANGER, command="firefox"), DRAWING, "desktop"),
    ("the display manager", replace(STRANGER, control_group="/system.slice/gdm.service"), LISTED,
     "desktop"),
    ("somebody's training", STRANGER, LISTED, "foreign"),
    ("somebody's, not listed", STRANGER, OPENED, "hidden"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "sight", "wanted"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_process_is_classified(evidence: Evidence, sight: Sight, wanted: HolderClass) -> None:
    assert classify(evidence, sight, CUSTOMS) == wanted


def test_every_class_is_in_the_table() -> None:
    assert {row[3] for row in TABLE} == {name for name, _ in RULES} | {"foreign", "hidden"}


def test_without_a_user_of_the_workers_no_tag_counts() -> None:
    assert classify(LEFT, LISTED, Customs()) == "foreign"


@pytest.mark.parametrize(
    ("control_group", "unit"),
    [
        (WORKER_GROUP, "medgemma-worker@0.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope",
         "user@1000.service"),
        ("/system.slice/docker-ab.scope/init", "docker-ab.scope"),
        ("/user.slice", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_unit_is_the_systems(control_group: str, unit: str) -> None:
    assert unit_of(control_group) == unit


@pytest.mark.parametrize(
    ("control_group", "number"),
    [
        (WORKER_GROUP, 0),
        (f"{WORKERS}/medgemma-worker@12.service/child", 12),
        (f"{WORKERS}/medgemma-worker@x.service", None),
        ("/system.slice/medgemma-worker@0.service", None),
        (f"/user.slice{WORKER_GROUP}", None),  # anybody may name a group of his own so
    ],
)
def test_a_worker_is_known_by_the_place_of_its_group(
    control_group: str, number: int | None
) -> None:
    assert worker_of(control_group) == number


def test_our_own_daemons_are_known() -> None:
    slice_ = "/medgemma.slice/medgemma-control.slice"
    assert is_daemon_of_ours(f"{slice_}/medgemma-thermal@0.service")
    assert not is_daemon_of_ours(WORKER_GROUP)
    assert not is_daemon_of_ours(f"/user.slice{slice_}/x.scope")


def test_what_is_published_names_the_process_and_its_worker() -> None:
    found = holder(LEFT, LISTED, CUSTOMS)
    assert (found.pid, found.start_time_ticks, found.command) == (4243, 77, "python3")
    assert (found.uid, found.unit, found.worker) == (WORKER_UID, "cron.service", 0)
    assert (found.vram_bytes, found.listed, found.mappings) == (GIB, True, False)
    inside = holder(replace(WORKER, tag=5), LISTED, CUSTOMS)
    assert inside.worker == 0  # the group can't be forged, the tag can
    opened = holder(STRANGER, OPENED, CUSTOMS)
    assert (opened.uid, opened.worker, opened.vram_bytes) == (OPERATOR_UID, None, None)
    assert (opened.listed, opened.mappings) == (False, True)
