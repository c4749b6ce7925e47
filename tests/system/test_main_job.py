# SPDX-License-Identifier: Apache-2.0
"""The main job: a DICOM image in, its statistics out, everything where the plan put it."""

import hashlib
import json

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.node.demo import ct_small
from tests.node.vm import Node
from tests.system.service import (
    SERVICE_UNITS,
    main_pid,
    predict,
    status,
    strangers,
)


@pytest.fixture
def node(shared_node: Node) -> Node:
    """All of these only look."""
    return shared_node


def test_the_answer_holds_the_statistics_of_the_image(node: Node) -> None:
    node.put(ct_small(), "/tmp/ct.dcm")
    answer = predict(node, "/tmp/ct.dcm")
    assert answer.status == 200, answer.body
    pixels = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False))).pixel_array
    told = answer.body["answer"]
    assert (told["width"], told["height"]) == (pixels.shape[1], pixels.shape[0])
    assert told["bit_depth"] == 16
    assert (told["min"], told["max"]) == (int(pixels.min()), int(pixels.max()))
    assert abs(told["mean"] - float(pixels.mean())) < 1e-6
    for percent, value in told["percentiles"].items():
        assert abs(value - float(np.percentile(pixels, float(percent)))) < 1e-6
    assert told["pixels_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_every_unit_is_active_and_every_process_in_one(node: Node) -> None:
    assert node.run(f"systemctl is-active {' '.join(SERVICE_UNITS)}").text.split() == (
        ["active"] * len(SERVICE_UNITS)
    )
    assert strangers(node) == []


def test_workers_run_where_the_plan_says_by_the_kernels_own_word(node: Node) -> None:
    plan = json.loads(node.run("cat /run/gpuwarden/placement/plan.json").text)["data"]
    assert [worker["gpu_index"] for worker in plan["workers"]] == [0, 1]
    assert [worker["numa_node"] for worker in plan["workers"]] == [0, 1]
    for worker in plan["workers"]:
        number, gpu = worker["number"], worker["gpu_index"]
        pid = main_pid(node, f"medgemma-worker@{number}")
        group = node.run(f"sed 's/^0:://' /proc/{pid}/cgroup").text
        assert group == (
            "/medgemma.slice/medgemma-workers.slice/"
            f"medgemma-workers-gpu{gpu}.slice/medgemma-worker@{number}.service"
        )
        allowed = node.run(f"awk '/^Cpus_allowed_list/ {{print $2}}' /proc/{pid}/status").text
        assert allowed == worker["cpus"]
        node_cpus = node.run(
            f"cat /sys/bus/pci/devices/{plan['cards'][gpu]['pci_address']}/local_cpulist"
        ).text
        assert allowed in (node_cpus, *node_cpus.split("-"))
        files = f"/sys/fs/cgroup{group}"
        assert int(node.run(f"cat {files}/memory.max").text) == worker["memory_max_bytes"]
        assert node.run(f"cat {files}/memory.swap.max").text == "0"
        assert node.run(f"cat /proc/{pid}/coredump_filter").text == "00000000"
        policy = node.run(f"grep -c 'prefer:{worker['numa_node']}' /proc/{pid}/numa_maps").text
        assert int(policy) > 0


def test_the_bus_tells_cards_and_workers(node: Node) -> None:
    tree = node.run("busctl tree --list org.gpuwarden1").text.split()
    for path in ("", "/gpu/0", "/gpu/1", "/worker/0", "/worker/1"):
        assert f"/org/gpuwarden1{path}" in tree
    workers = node.run(
        "busctl --json=short call org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager ListWorkers"
    ).text
    rows = json.loads(workers)["data"][0]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (n, f"/org/gpuwarden1/worker/{n}", f"medgemma-worker@{n}.service") for n in (0, 1)
    ]
    assert [row[4] for row in rows] == [main_pid(node, f"medgemma-worker@{n}") for n in (0, 1)]
    for n in (0, 1):
        celsius = node.run(
            f"busctl get-property org.gpuwarden1 /org/gpuwarden1/gpu/{n} org.gpuwarden1.Gpu "
            "TemperatureCelsius"
        ).text
        assert 15 < float(celsius.split()[1]) < 80


def test_workers_hold_their_cards_memory_and_heat_them(node: Node) -> None:
    shown = json.loads(node.run("gpuwarden-sim show --json").text)
    for gpu, card in enumerate(shown["cards"]):
        pids = [process["pid"] for process in card["contexts"]]
        assert pids == [main_pid(node, f"medgemma-worker@{gpu}")]


def test_status_names_the_simulation_everywhere(node: Node) -> None:
    assert status(node)["simulated"] is True
    assert "SIMULATED" in node.run("systemctl show -P StatusText medgemma-guard").text
    assert "SIMULATED" in node.run("gpuwarden status", check=False).text


def test_an_unprivileged_user_reads_nothing_and_a_group_member_reads(node: Node) -> None:
    call = "busctl call org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager ListWorkers"
    refused = node.run(call, user="alice", check=False)
    assert refused.status != 0
    assert "denied" in refused.error_text.lower()
    node.run("usermod -aG gpuwarden oscar")
    assert node.run(call, user="oscar").text.startswith("a(uossu) 2")
    node.run("gpasswd --delete oscar gpuwarden")
