# SPDX-License-Identifier: Apache-2.0
"""Durable jobs on the node: who can read what, their key, the power, their disk."""

import json
from pathlib import Path

from tests.node.demo import ct_small
from tests.node.vm import Node
from tests.soak import jobs
from tests.system.service import curl, predict, wait_for

SEED = 5
KEY = "/var/lib/gpuwarden/jobs.key"
RESTART = "systemctl restart medgemma-jobs-key; systemctl restart medgemma-gateway"


def test_an_accepted_job_is_answered_whatever_happens(node: Node, tmp_path: Path) -> None:
    node.run("mkdir /tmp/study")
    node.put(ct_small(), "/tmp/study/ct.dcm")
    told = json.loads(node.run("gpuwarden submit /tmp/study --question stats --wait --json").text)
    assert told["jobs"][0]["job"]["result"]["answer"]["width"] == 128

    # Root alone has the key's file, the gateway has the key, and nothing is to be read on disk.
    assert node.run(f"stat -c '%U %a' {KEY} /var/lib/gpuwarden/jobs").text.split("\n") == [
        "root 600",
        "gpuwarden-gateway 700",
    ]
    assert node.run(f"cat {KEY}", user="gpuwarden-gateway", check=False).status != 0
    assert node.run("grep -rl DICM /var/lib/gpuwarden/jobs", check=False).text == ""
    assert node.run("gpuwarden jobs", user="alice", check=False).status == 1

    a_key_that_cannot_be_unsealed_stops_jobs_alone(node)

    cuts = jobs.power_cuts(node, 1, SEED)
    assert (cuts.done, cuts.faults) == (1, [])
    crashes = jobs.crash_points(node, 4, tmp_path)
    assert crashes.faults == []
    assert crashes.done > 8


def a_key_that_cannot_be_unsealed_stops_jobs_alone(node: Node) -> None:
    node.run(f"mv {KEY} /root/kept && echo not sealed here > {KEY}; {RESTART} || true")
    wait_for(node, "curl --silent --fail http://127.0.0.1:7860/readyz")
    assert predict(node, "/tmp/study/ct.dcm").status == 200
    refused = curl(node, "-F image=@/tmp/study/ct.dcm", "/v1/jobs")
    assert (refused.status, refused.body["error"]["type"]) == (503, "jobs_unavailable")
    node.run(f"mv /root/kept {KEY}; {RESTART}")
    wait_for(node, "gpuwarden jobs | grep -q '1 succeeded'")
