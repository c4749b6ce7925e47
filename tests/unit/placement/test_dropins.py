# SPDX-License-Identifier: Apache-2.0
from pathlib import PurePosixPath

import pytest

from gpuwarden.config import Configuration
from gpuwarden.placement.dropins import stop_timeout_seconds, unit_files
from gpuwarden.placement.plan import Driver, make_plan
from gpuwarden.topology.model import Topology
from tests.machines import card, machine

DRIVER = Driver("580.159.04", simulated=False)

WORKER = """\
# Written by medgemma-numa.service from /etc/gpuwarden: changes here are lost.
# NVIDIA H200 at 0000:11:00.0
[Service]
Slice=medgemma-workers-gpu1.slice
CPUAffinity=4-7,12-15
Environment=OMP_NUM_THREADS=4 MKL_NUM_THREADS=4 OPENBLAS_NUM_THREADS=4 \
NUMEXPR_NUM_THREADS=4 VECLIB_MAXIMUM_THREADS=4 RAYON_NUM_THREADS=4
NUMAPolicy=preferred
NUMAMask=1
# The worker raises its GPU thread alone, and no higher than this.
LimitRTPRIO=10
RestrictRealtime=no
# What it takes where the kernel refuses a real-time policy.
LimitNICE=-10
Environment=CUDA_VISIBLE_DEVICES=GPU-00000001
DevicePolicy=closed
DeviceAllow=/dev/char/195:1 rw
DeviceAllow=/dev/char/195:255 rw
DeviceAllow=char-nvidia-uvm rw
MemoryMax=17179869184
MemorySwapMax=0
TasksMax=512
TimeoutStartSec=600
TimeoutStopSec=40
"""

SLICE = """\
# Written by medgemma-numa.service from /etc/gpuwarden: changes here are lost.
[Unit]
Description=gpuwarden model workers of GPU 1

[Slice]
CPUWeight=100
IOWeight=100
MemoryMax=17179869184
AllowedCPUs=4-7,12-15
"""

TARGET = """\
# Written by medgemma-numa.service from /etc/gpuwarden: changes here are lost.
[Unit]
Wants=medgemma-thermal@0.service
Wants=medgemma-thermal@1.service
"""


GUARD = """\
# Written by medgemma-numa.service from /etc/gpuwarden: changes here are lost.
[Service]
DeviceAllow=
DevicePolicy=closed
DeviceAllow=/dev/char/195:{minor} rw
DeviceAllow=/dev/char/195:255 rw
DeviceAllow=char-nvidia-uvm rw
"""


def files(
    configuration: Configuration | None = None, topology: Topology | None = None, node: int = 1
) -> dict[str, str]:
    configuration, topology = configuration or Configuration(), topology or machine()
    cards = [card(0, 0, present=False), card(1, node)]
    plan = make_plan(cards, topology, configuration, DRIVER)
    return {str(path): text for path, text in unit_files(plan, configuration, topology).items()}


def worker_lines(**changes: object) -> list[str]:
    configuration = Configuration.model_validate(changes)
    return files(configuration)["medgemma-worker@1.service.d/50-placement.conf"].splitlines()


def test_the_files_of_a_node_are_these() -> None:
    assert files() == {
        "medgemma-worker@1.service.d/50-placement.conf": WORKER,
        "medgemma-workers-gpu1.slice": SLICE,
        "medgemma-thermal.target.d/50-placement.conf": TARGET,
        "medgemma-thermal@0.service.d/50-placement.conf": GUARD.format(minor=0),
        "medgemma-thermal@1.service.d/50-placement.conf": GUARD.format(minor=1),
        "medgemma-scan.target.d/50-placement.conf": TARGET.replace("thermal", "scan"),
        "medgemma-scan@0.service.d/50-placement.conf": GUARD.format(minor=0),
        "medgemma-scan@1.service.d/50-placement.conf": GUARD.format(minor=1),
    }


def test_an_unpinned_worker_has_no_cpu_and_no_memory_directive() -> None:
    written = files(node=-1)
    text = "".join(written.values())
    for directive in ("CPUAffinity", "AllowedCPUs", "NUMA", "OMP_NUM_THREADS"):
        assert directive not in text
    assert "CUDA_VISIBLE_DEVICES=GPU-00000001" in text


def test_bind_binds_worker_and_slice() -> None:
    written = files(Configuration.model_validate({"placement": {"memory_policy": "bind"}}))
    assert "NUMAPolicy=bind\nNUMAMask=1\n" in "".join(written.values())
    assert "AllowedMemoryNodes=1\n" in written["medgemma-workers-gpu1.slice"]


def test_preferred_leaves_the_slice_free() -> None:
    assert "AllowedMemoryNodes" not in "".join(files().values())


def test_no_policy_leaves_memory_to_the_kernel() -> None:
    assert not [
        line for line in worker_lines(placement={"memory_policy": "none"}) if "NUMA" in line
    ]


def test_a_machine_without_numa_is_not_asked_for_a_node() -> None:
    whole = machine()
    bare = Topology(whole.online_cpus, whole.node_cpus, frozenset(), whole.siblings)
    assert "NUMAPolicy" not in "".join(files(topology=bare).values())


def test_real_time_is_allowed_as_far_as_it_is_planned() -> None:
    lines = worker_lines(workers={"inference_priority": "fifo:99"})
    assert "LimitRTPRIO=99" in lines
    assert "RestrictRealtime=no" in lines


def test_a_normal_worker_stays_as_shut_in_as_its_unit() -> None:
    normal = worker_lines(workers={"inference_priority": "normal"})
    unpinned = "".join(files(node=-1).values()).splitlines()
    for lines in (normal, unpinned):
        assert not [line for line in lines if "RTPRIO" in line or "NICE" in line]
        assert not [line for line in lines if "RestrictRealtime" in line]


def test_a_server_is_asked_over_a_loopback_that_is_its_own_or_the_hosts() -> None:
    own = worker_lines(workers={"network": "private"})
    of_host = worker_lines(workers={"network": "host"})
    for lines in (own, of_host):
        assert "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK" in lines
        assert "IPAddressAllow=localhost" in lines
    assert ("PrivateNetwork=no" in own, "PrivateNetwork=no" in of_host) == (False, True)
    assert not [line for line in worker_lines() if "Network" in line or "Address" in line]


def test_times_follow_the_configuration() -> None:
    lines = worker_lines(workers={"drain_seconds": 12.5, "load_timeout_seconds": 90.0})
    assert "TimeoutStopSec=23" in lines
    assert "TimeoutStartSec=90" in lines


@pytest.mark.parametrize(("drain", "stop"), [(30.0, 40), (0.0, 10), (0.2, 11)])
def test_a_stop_leaves_time_for_drain_grace_and_margin(drain: float, stop: int) -> None:
    assert stop_timeout_seconds(drain) == stop


def test_a_slice_carries_the_sum_of_its_workers() -> None:
    written = files(Configuration.model_validate({"workers": {"workers_per_gpu": 3}}))
    assert f"MemoryMax={3 * 17179869184}\n" in written["medgemma-workers-gpu1.slice"]


def test_paths_are_relative_to_systemds_directory() -> None:
    for path in map(PurePosixPath, files()):
        assert not path.is_absolute()
        assert ".." not in path.parts
