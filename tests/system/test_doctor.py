# SPDX-License-Identifier: Apache-2.0
"""The doctor on a running node: healthy, broken in several ways at once, mended as it says."""

import json
from typing import Any

import pytest

from tests.node.vm import Node
from tests.system.service import main_pid, wait_for_state

RIVAL = "nvidia-pstated"
RIVAL_UNIT = f"[Service]\\nExecStart=/usr/local/bin/{RIVAL} infinity\\n"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
WORKER_0 = "systemctl restart medgemma-worker@0.service"
Findings = dict[str, dict[str, Any]]


def doctor(node: Node, user: str = "root") -> tuple[int, Findings]:
    """The exit status and the findings by name."""
    finished = node.run(f"runuser -u {user} -- gpuwarden doctor --json", check=False)
    document = json.loads(finished.text)
    return finished.status, {finding["name"]: finding for finding in document["findings"]}


def names(findings: Findings, verdict: str) -> set[str]:
    return {name for name, finding in findings.items() if finding["verdict"] == verdict}


@pytest.mark.long("tests/unit/doctor")
def test_a_node_is_told_what_is_wrong_with_it_and_mended_as_it_is_told(node: Node) -> None:
    # Its kernel makes huge pages by default, nobody sets its clock, its disk has no scheduler.
    node.run(f"echo never > {THP}; usermod --append --groups gpuwarden oscar")
    status, findings = doctor(node)
    assert (status, names(findings, "wrong")) == (0, set())
    assert names(findings, "doubtful") <= {"clock", "I/O scheduler"}
    assert names(findings, "unknown") == set()
    assert findings["bus policy"]["found"] == "root and oscar of the group may call"
    assert findings["CPUs of worker 1"]["found"] == "2-3"
    assert findings["memory of worker 1"]["verdict"] == "good"

    status, seen = doctor(node, "alice")
    assert (status, names(seen, "wrong")) == (0, set())
    for name in names(seen, "unknown"):
        assert "run as root" in seen[name]["mend"]

    pid = main_pid(node, "medgemma-worker@0")
    # Its slice keeps it on its CPUs, whatever its affinity: both must be gone.
    node.run(
        "slice=$(systemctl show -P Slice medgemma-worker@0); "
        "systemctl set-property --runtime $slice AllowedCPUs=0-3; "
        f"taskset --all-tasks --pid --cpu-list 0-3 {pid}; chrt --fifo --pid 50 {pid}; "
        "chmod 0777 /var/lib/gpuwarden/jobs; chmod 0666 /etc/gpuwarden/gpuwarden.toml; "
        f"cp /bin/sleep /usr/local/bin/{RIVAL}; "
        f"printf '{RIVAL_UNIT}' > /etc/systemd/system/{RIVAL}.service; "
        f"systemctl daemon-reload; systemctl start {RIVAL}; "
        "fallocate -l 16M /swap; chmod 600 /swap; mkswap -q /swap; swapon /swap; "
        "group=$(systemctl show -P ControlGroup medgemma-worker@1); "
        "echo max > /sys/fs/cgroup/$group/memory.swap.max; "
        f"echo always > {THP}; sysctl -qw kernel.sched_rt_runtime_us=-1"
    )
    status, findings = doctor(node)
    assert status == 1
    mends = {name: findings[name]["mend"] for name in names(findings, "wrong")}
    assert mends == {
        "CPUs of worker 0": WORKER_0,
        "priority of worker 0": WORKER_0,
        "permissions of folders": "systemd-tmpfiles --create gpuwarden.conf",
        "permissions of the configuration": "chown root:root /etc/gpuwarden/gpuwarden.toml; "
        "chmod go-w /etc/gpuwarden/gpuwarden.toml",
        "real-time limit": "sysctl -w kernel.sched_rt_runtime_us=950000"
        "  # see who sets it: grep -r sched_rt /etc/sysctl*",
        "other holders of card limits": f"systemctl disable --now {RIVAL}.service",
        "swap": "swapoff -a  # which drop-in lets it: systemctl cat medgemma-worker@1.service",
    }
    assert f"PID {pid}: 0-3" in findings["CPUs of worker 0"]["found"]
    assert f"{RIVAL}.service" in findings["other holders of card limits"]["found"]
    assert findings["transparent huge pages"]["verdict"] == "doubtful"

    for mend in {*mends.values(), findings["transparent huge pages"]["mend"]}:
        node.run(["bash", "-euc", mend], timeout_seconds=120)
    wait_for_state(node, "running")
    status, findings = doctor(node)
    assert (status, names(findings, "wrong")) == (0, set())
    assert names(findings, "doubtful") <= {"clock", "I/O scheduler"}
