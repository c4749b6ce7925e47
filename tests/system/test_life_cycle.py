# SPDX-License-Identifier: Apache-2.0
"""The life cycle on a node: whatever a worker does, it ends, leaves nothing, and loses nothing."""

import json
import re
from pathlib import Path
from typing import Any

from tests.node.vm import Node
from tests.system.service import curl, main_pid, state, status, wait_for, wait_for_state

MANAGER = "org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager"
HERE = Path(__file__).parent
CONFIG = """
[workers]
engine_path = ["/opt/models"]
engine = "unruly:Unruly"
drain_seconds = 6
execution_timeout_seconds = 300
"""
STRAYS = "pgrep -f 'sleep 900[1-4]'"


class Table:
    """The cases and what was seen of each; printed at the end."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def add(self, case: str, seen: str) -> None:
        self.rows.append((case, seen))
        print(f"  {case:<42} {seen}", flush=True)


def order(node: Node, method: str, number: int | None = None) -> str:
    """Call the Manager; the error's name and text, empty where it was accepted."""
    argument = "" if number is None else f"u {number}"
    result = node.run(f"busctl call {MANAGER} {method} {argument}", check=False)
    return result.error_text.strip() if result.status else ""


def ask(node: Node, question: str, extra: str = "") -> int:
    return curl(node, f"-F image=@/etc/hostname -F question={question} {extra}", "/predict").status


def worker(node: Node, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = status(node)["workers"][number]
    return found


def published(number: int, name: str) -> str:
    """A shell word: what the guard publishes of a worker; there, without starting a Python."""
    state = "/run/gpuwarden/guard/state.json"
    return (
        f"$(grep -o '\"{name}\":[^,]*' {state} | sed -n {number + 1}p | cut -d: -f2- | tr -d '\"')"
    )


def operation_is(number: int, words: str) -> str:
    return f'[ "{published(number, "operation")}" = "{words}" ]'


def wait_for_the_children(node: Node) -> None:
    """All of them are there, and the guard has seen them."""
    wait_for(node, f"[ $({STRAYS} | wc -l) -ge 4 ] && [ {published(0, 'process_count')} -ge 8 ]")


def count(node: Node, event: str) -> int:
    return len(node.run(f"journalctl -o cat --no-pager GPUWARDEN_EVENT={event}").text.splitlines())


def wait_for_another(node: Node, event: str, before: int) -> dict[str, str]:
    """The next entry of that event, as its fields."""
    journal = f"journalctl --no-pager GPUWARDEN_EVENT={event}"
    wait_for(node, f"[ $({journal} -o cat | wc -l) -gt {before} ]", 180)
    line = node.run(f"{journal} -o json -n 1").text
    found: dict[str, str] = json.loads(line)
    return found


def group_of(node: Node, pid: int) -> str:
    return node.run(f"sed 's/^0:://' /proc/{pid}/cgroup").text


def is_gone(node: Node, group: str) -> bool:
    return node.run(f"[ ! -d /sys/fs/cgroup{group} ]", check=False).status == 0


def seconds_in(message: str) -> float:
    found = re.search(r" in ([0-9.]+) s", message)
    assert found, message
    return float(found[1])


def use_the_unruly_model(node: Node) -> None:
    node.run("mkdir -p /opt/models /etc/gpuwarden/conf.d")
    node.put((HERE / "unruly.py").read_bytes(), "/opt/models/unruly.py")
    node.put((HERE / "load.py").read_bytes(), "/tmp/load.py")
    node.put(CONFIG.encode(), "/etc/gpuwarden/conf.d/90-test.toml")
    node.run("gpuwarden reload", timeout_seconds=120)


def under_load(
    node: Node, method: str, number: int | None, done: str, table: Table
) -> dict[str, int]:
    """What came of the requests that were asked while something was ordered and done.

    Meanwhile nothing else can be ordered of worker 0.
    """
    node.run("rm -f /tmp/enough; (python3 /tmp/load.py /tmp/enough 2 > /tmp/seen &) ; sleep 2")
    assert order(node, method, number) == ""
    for other, argument in (("StopWorker", 0), ("RollingRestart", None)):
        refused = order(node, other, argument)
        assert "worker 0 is busy (restarting" in refused, refused
        table.add(f"{other} during {method}", refused)
    wait_for(node, done, 240)
    node.run("touch /tmp/enough")
    wait_for(node, "[ -s /tmp/seen ]")
    seen: dict[str, int] = json.loads(node.run("cat /tmp/seen").text)
    return seen


def test_every_end_of_a_worker_leaves_nothing_and_loses_nothing(node: Node) -> None:
    table = Table()
    use_the_unruly_model(node)
    rolled(node, table)
    killed(node, table)
    drained(node, table)
    ignoring_sigterm(node, table)
    hanging(node, table)
    leaking(node, table)
    restarted_under_load(node, table)
    out_of_service(node, table)
    assert state(node) == "running"
    assert len(table.rows) >= 10


def rolled(node: Node, table: Table) -> None:
    """Also takes the model into use: the workers ran by former settings."""
    journal = "journalctl -o cat --no-pager GPUWARDEN_EVENT=rolling-restart"
    done = f"{journal} | grep -q 'rolling restart done'"
    seen = under_load(node, "RollingRestart", None, done, table)
    assert set(seen) == {"200"}, seen
    told = node.run(f"{journal} -n 1").text
    assert "2 workers" in told
    wait_for_state(node, "running")
    table.add("RollingRestart under load", f"{seen['200']} answered, none lost; {told}")


def killed(node: Node, table: Table) -> None:
    assert order(node, "DrainWorker", 1) == ""
    wait_for(node, operation_is(1, "drained"))
    assert ask(node, "spawn") == 200
    before = main_pid(node, "medgemma-worker@0")
    wait_for_the_children(node)
    was, ended = worker(node), count(node, "worker-ended")
    assert was["process_depth"] >= 4
    assert was["process_count"] >= 8
    node.run(f"kill -KILL {before}")
    told = wait_for_another(node, "worker-ended", ended)
    assert int(told["PROCESSES_ENDED"]) == was["process_count"]
    assert told["PROCESSES_LEFT"] == "0"
    assert node.run(STRAYS, check=False).text == ""
    assert int(told["VRAM_FREED_BYTES"]) >= 2 << 30
    wait_for(node, f"systemctl is-active -q medgemma-worker@0 && {operation_is(1, 'drained')}")
    now = worker(node)
    assert (now["last_error"], now["restarts"]) == ("killed by SIGKILL", 1)
    assert "killed by SIGKILL" in now["last_exit"]
    states = node.run("journalctl -o cat --no-pager GPUWARDEN_EVENT=service-state").text
    assert "worker 0 is starting (killed by SIGKILL)" in states
    table.add("SIGKILL, children with setsid, double fork", told["MESSAGE"])


def drained(node: Node, table: Table) -> None:
    """Worker 1 is drained: that outlives guard and gateway, and a start ends it."""
    before = main_pid(node, "medgemma-guard")
    node.run(f"kill -KILL {before}; systemctl restart medgemma-gateway", timeout_seconds=90)
    drained = "grep -q '\"drained\":\\[1\\]' /run/gpuwarden/gateway/state.json"
    wait_for(node, f"[ $(systemctl show -P MainPID medgemma-guard) != {before} ] && {drained}")
    wait_for(node, "systemctl is-active -q medgemma-guard")
    assert worker(node, 1)["state"] == "draining"
    assert order(node, "StartWorker", 1) == ""
    wait_for_state(node, "running")
    assert node.run(drained, check=False).status == 1
    table.add("DrainWorker, guard killed, gateway restarted", "drained until StartWorker")


def stop(node: Node, number: int = 0) -> dict[str, str]:
    """Stop a worker; what the journal says of its end."""
    group = group_of(node, main_pid(node, f"medgemma-worker@{number}"))
    ended = count(node, "worker-ended")
    assert order(node, "StopWorker", number) == ""
    told = wait_for_another(node, "worker-ended", ended)
    assert is_gone(node, group)
    assert told["PROCESSES_LEFT"] == "0"
    assert int(told["VRAM_FREED_BYTES"]) >= 2 << 30
    wait_for(node, operation_is(number, ""))
    return told


def start(node: Node, number: int = 0) -> None:
    assert order(node, "StartWorker", number) == ""
    wait_for_state(node, "running", 180)


def only_for_worker_0(node: Node, *questions: str, wait: bool = True) -> None:
    """Ask something that no other worker gets to hear."""
    assert order(node, "DrainWorker", 1) == ""
    wait_for(node, operation_is(1, "drained"))
    for question in questions:
        if wait:
            assert ask(node, question) == 200
        else:
            node.run(
                f"curl --silent --max-time 3 -F image=@/etc/hostname -F question={question} "
                "http://127.0.0.1:7860/predict",
                check=False,
            )
    assert order(node, "StartWorker", 1) == ""
    wait_for(node, operation_is(1, ""))


def ignoring_sigterm(node: Node, table: Table) -> None:
    """With the same children, so that systemd's own SIGKILL is what ends them."""
    only_for_worker_0(node, "spawn", "ignore-sigterm")
    wait_for_the_children(node)
    killed = count(node, "worker-killed")
    told = stop(node)
    assert node.run(STRAYS, check=False).text == ""
    assert int(told["PROCESSES_ENDED"]) >= 8
    assert count(node, "worker-killed") == killed + 1
    assert 5 <= seconds_in(told["MESSAGE"]) <= 25
    assert worker(node)["state"] == "stopped"
    assert "there is no worker 7" in order(node, "StopWorker", 7)
    assert ask(node, "obey") == 200
    start(node)
    table.add("StopWorker, SIGTERM ignored, these children", told["MESSAGE"])


def hanging(node: Node, table: Table) -> None:
    only_for_worker_0(node, "hang", wait=False)
    told = stop(node)
    assert seconds_in(told["MESSAGE"]) <= 25
    start(node)
    table.add("StopWorker of one that hangs in predict", told["MESSAGE"])


def leaking(node: Node, table: Table) -> None:
    neighbour, ended = main_pid(node, "medgemma-worker@1"), count(node, "worker-ended")
    only_for_worker_0(node, "leak")
    told = wait_for_another(node, "worker-ended", ended)
    assert "killed by the kernel at its memory limit" in told["MESSAGE"]
    wait_for_state(node, "running", 180)
    assert main_pid(node, "medgemma-worker@1") == neighbour
    assert worker(node)["last_error"] == "killed by the kernel at its memory limit"
    table.add("a leak up to the memory limit", told["MESSAGE"])


def restarted_under_load(node: Node, table: Table) -> None:
    back = count(node, "worker-operation")
    journal = "journalctl -o cat --no-pager GPUWARDEN_EVENT=worker-operation"
    done = f"[ $({journal} | wc -l) -ge {back + 2} ]"
    seen = under_load(node, "RestartWorker", 0, done, table)
    assert set(seen) == {"200"}, seen
    told = node.run(f"{journal} -n 1").text
    assert "worker 0 is back after" in told
    table.add("RestartWorker under load", f"{seen['200']} answered, none lost; {told}")


def out_of_service(node: Node, table: Table) -> None:
    wait_for_state(node, "running")
    node.run("gpuwarden-sim fault --gpu 0 xid=119")
    wait_for(node, "! systemctl is-active -q medgemma-worker@0", 60)
    told = node.run("journalctl -o cat --no-pager GPUWARDEN_EVENT=card-out-of-service").text
    assert "GPU 0 needs a reset (XID 119" in told
    assert "nvidia-smi -r -i 0" in told
    assert "GPU 0 needs a reset first" in order(node, "StartWorker", 0)
    assert worker(node)["held"] == "reset"
    assert ask(node, "obey") == 200
    node.run("gpuwarden-sim clear --gpu 0")
    wait_for_state(node, "running", 180)
    table.add("XID 119: out of service until it is well", told.splitlines()[0])
