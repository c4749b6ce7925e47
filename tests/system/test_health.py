# SPDX-License-Identifier: Apache-2.0
"""Workers that are unwell and strangers on a card, in one node: seen, said, mended.

The configured times are short, so that it is the guard that restarts a stuck worker here, and not
systemd's watchdog, which would take 30 s.
"""

from pathlib import Path

import pytest

from tests.node.vm import Node
from tests.system.service import (
    configure,
    curl,
    main_pid,
    status,
    wait_for,
    wait_for_next_life,
    wait_for_state,
)

# Answers, but for a question that hangs the card's thread for ever.
MOODY = """
import time

from gpuwarden.worker.engine import Engine


class Moody(Engine):
    def load(self, context):
        pass

    def preprocess(self, request):
        return request.question

    def predict(self, batch):
        if "hang" in batch:
            time.sleep(3600)
        return [{"question": question} for question in batch]
"""
CONFIGURATION = """
[workers]
engine_path = ["/opt/models"]
engine = "moody:Moody"
execution_timeout_seconds = 10.0
memory_max_bytes = "400M"
drain_seconds = 1.0
max_batch = 1

[health]
stuck_grace_seconds = 3.0
"""
SERVER = Path(__file__).parents[1] / "integration" / "openai_server.py"
SERVED_BY_A_SERVER = """
[workers]
engine = "command"
memory_max_bytes = "400M"
drain_seconds = 1.0

[workers.options]
port = 8000
command = [
  "/bin/sh", "-c",
  "chrt -f 5 true && export GREETING=fast; exec python3 /opt/models/s.py --child --port {port}",
]
"""
MANAGER = "org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager"
HELD_MEBIBYTES = 512
# What a dead worker leaves: its user and its tag, in another control group than its unit's. On the
# card that isn't worker 1's, so that no start of that one ends it before its minute is over.
LEFT_BEHIND = (
    "systemd-run --quiet --collect --unit=left-behind --uid=gpuwarden-worker "
    "--setenv=GPUWARDEN_WORKER=1 "
)
STRANGER = "systemd-run --quiet --collect --unit=stranger "
HOLD = f"/usr/bin/gpuwarden-sim hold --gpu 0 --bytes {HELD_MEBIBYTES}M"
HOLD_AS_WORKER = f"""
import json, socket, sys, time
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/gpuwarden-sim/attach.sock")
request = {{"uuid": sys.argv[1], "vram_bytes": {HELD_MEBIBYTES << 20}, "load": 0.0}}
connection.sendall(json.dumps(request).encode() + b"\\n")
connection.recv(1000)
time.sleep(3600)
"""


@pytest.mark.long("tests/integration/test_guard_health.py")
def test_what_ails_a_worker_is_seen_and_mended_and_what_strangers_hold_is_known(node: Node) -> None:
    serve_with_a_moody_model(node)
    a_strangers_memory_is_shown_and_comes_free_on_request(node)
    a_worker_that_lost_its_context_is_started_again(node)
    something_is_left_behind(node)
    a_worker_that_hangs_is_started_again(node)
    what_was_left_behind_was_ended_after_a_minute(node)
    wait_for_state(node, "running")
    a_server_is_a_worker_like_any_other_and_ends_whole(node)


def serve_with_a_moody_model(node: Node) -> None:
    node.run("mkdir -p /opt/models")
    node.put(MOODY.encode(), "/opt/models/moody.py")
    configure(node, CONFIGURATION, "/etc/gpuwarden/conf.d/50-node.toml")
    wait_for(node, """grep -q '"scans":{"0":"","1":""}' /run/gpuwarden/guard/state.json""")


def something_is_left_behind(node: Node) -> None:
    """It takes the guard a minute to act: so it is made first, and looked after last."""
    uuid = status(node)["gpus"][0]["uuid"]
    node.put(HOLD_AS_WORKER.encode(), "/opt/models/hold.py")
    node.run(f"{LEFT_BEHIND} python3 /opt/models/hold.py {uuid}")


def a_strangers_memory_is_shown_and_comes_free_on_request(node: Node) -> None:
    node.run(f"{STRANGER} {HOLD}")
    pid = main_pid(node, "stranger")
    wait_for(node, f"busctl call {MANAGER} ListOrphans | grep -q ' {pid} 0 \"foreign\"'")
    refused = node.run(f"busctl call {MANAGER} ReapOrphan u 1", check=False)
    assert "is init" in refused.error_text
    worker = main_pid(node, "medgemma-worker@0")
    refused = node.run(f"busctl call {MANAGER} ReapOrphan u {worker}", check=False)
    assert "which runs" in refused.error_text
    freed = node.run(f"busctl call {MANAGER} ReapOrphan u {pid}", timeout_seconds=60).text
    assert freed == f"t {HELD_MEBIBYTES << 20}"
    assert node.run(f"test -e /proc/{pid}", check=False).status != 0
    assert f"was ended: freed {HELD_MEBIBYTES} MiB" in told(node, "orphan-reaped")
    assert main_pid(node, "medgemma-worker@0") == worker


def a_worker_that_lost_its_context_is_started_again(node: Node) -> None:
    neighbour = main_pid(node, "medgemma-worker@1")
    node.run("gpuwarden-sim fault --gpu 0 context-lost")
    assert ask(node, "are you there?") == 200  # the port answers all the same
    wait_until_back(node, 0)
    assert "the simulator ended the context" in told(node, "worker-ghost")
    wait_for_state(node, "running")
    assert main_pid(node, "medgemma-worker@1") == neighbour


def a_worker_that_hangs_is_started_again(node: Node) -> None:
    before = {main_pid(node, f"medgemma-worker@{number}") for number in (0, 1)}
    assert ask(node, "hang") == 504
    wait_for(node, '[ -n "$(journalctl -q -o cat GPUWARDEN_EVENT=worker-stuck)" ]')
    assert "is stuck: a batch is past its time limit" in told(node, "worker-stuck")
    assert ask(node, "are you there?") == 200  # by the other one
    alive = " ".join(str(pid) for pid in before)
    wait_for(node, f"! (for pid in {alive}; do test -e /proc/$pid || exit 1; done)")
    running = "systemctl show -P MainPID medgemma-worker@0 medgemma-worker@1 | grep -c '[1-9]'"
    wait_for(node, f"[ $({running}) = 2 ]")
    wait_for_state(node, "running")
    assert len(before - {main_pid(node, f"medgemma-worker@{number}") for number in (0, 1)}) == 1


def what_was_left_behind_was_ended_after_a_minute(node: Node) -> None:
    reaped = "journalctl -q -o cat GPUWARDEN_EVENT=orphan-reaped | grep -q 'left by worker 1'"
    wait_for(node, reaped, timeout_seconds=180)
    assert node.run("systemctl show -P ActiveState left-behind").text == "inactive"
    found = [
        line for line in told(node, "orphan-reaped").splitlines() if "left by worker 1" in line
    ]
    assert len(found) == 1
    assert found[0].endswith(f"was ended: freed {HELD_MEBIBYTES} MiB")
    wait_for(node, """grep -q '"orphans":\\[\\]' /run/gpuwarden/guard/state.json""")


def wait_until_back(node: Node, number: int) -> None:
    """Until the guard has restarted the worker and seen it serve."""
    found = f"journalctl -q -o cat GPUWARDEN_EVENT=worker-operation WORKER={number}"
    wait_for(node, f"{found} | grep -q 'is back after'")


def ask(node: Node, question: str) -> int:
    image = "-F 'image=@/opt/models/moody.py;type=application/dicom'"
    return curl(node, f"{image} -F 'question={question}'", "/predict").status


def told(node: Node, event: str) -> str:
    return node.run(f"journalctl -q --no-pager -o cat GPUWARDEN_EVENT={event}").text


def a_server_is_a_worker_like_any_other_and_ends_whole(node: Node) -> None:
    node.put(SERVER.read_bytes(), "/opt/models/s.py")
    configure(node, SERVED_BY_A_SERVER, "/etc/gpuwarden/conf.d/50-node.toml")
    assert say_hello(node) == "hello"
    # Its port is seen by its worker alone: nobody gets past the front door.
    refused = node.run("curl --silent --max-time 5 http://127.0.0.1:8000/health", check=False)
    assert refused.status == 7
    # The worker with CPUs of its own may give it what inference_priority allows; the other may not.
    started = "journalctl -o cat --no-pager -u medgemma-worker@{} | grep -c 'starts with fast'"
    assert [node.run(started.format(n), check=False).text for n in (0, 1)] == ["0", "1"]
    wait_for(node, "gpuwarden workers | grep -q 'its server: 0 running, 2 waiting, 25% of its KV'")
    main = main_pid(node, "medgemma-worker@0")
    group = node.run(f"sed 's/^0:://' /proc/{main}/cgroup").text
    members = node.run(f"cat /sys/fs/cgroup{group}/cgroup.procs").text.split()
    server = node.run(f"pgrep --parent {main} -f models/s.py").text
    assert {str(main), server} < set(members)
    node.run(f"kill -KILL {server}")
    assert say_hello(node) == "hello"  # by the other one, or by the next
    wait_for_next_life(node, "medgemma-worker@0", main)
    wait_for_state(node, "running")
    alive = f"for pid in {' '.join(members)}; do test ! -e /proc/$pid || echo $pid; done"
    assert node.run(alive).text == ""
    assert node.run("pgrep -c -f 'sleep 900[5]'").text == "2"
    why = f"its server (PID {server}) was killed by signal 9"
    assert why in node.run("journalctl -o cat --no-pager -u medgemma-worker@0").text


def say_hello(node: Node) -> str:
    body = '{"model": "command", "messages": [{"role": "user", "content": "hello"}]}'
    chat = f"-H 'Content-Type: application/json' -d '{body}'"
    answer = curl(node, chat, "/v1/chat/completions")
    assert answer.status == 200, answer
    return str(answer.body["choices"][0]["message"]["content"])
