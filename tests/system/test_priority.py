# SPDX-License-Identifier: Apache-2.0
"""What the plan of a worker is worth, by the kernel's own word: priority, memory, CPU time."""

import json
from collections.abc import Callable

import pytest

from tests.node.vm import Node
from tests.system.scheduling import (
    Spent,
    Thread,
    anonymous_bytes_by_node,
    processes_of,
    threads_of,
)
from tests.system.service import configure, main_pid, wait_for, wait_for_state

WORKER = "medgemma-worker@1.service"
SLICE = "medgemma-workers-gpu1.slice"
WEIGHTS_BYTES = 200 << 20
# A model that holds memory and computes, on the CPU, as much as the request says.
HEAVY = f"""
import hashlib
from gpuwarden.worker.engine import Engine

BLOCK = bytes(1 << 20)


def compute(blocks):
    digest = hashlib.sha256()
    for _ in range(blocks):
        digest.update(BLOCK)
    return digest.hexdigest()


class Heavy(Engine):
    def load(self, context):
        self.weights = bytearray(b"w") * {WEIGHTS_BYTES}

    def preprocess(self, request):
        compute(int(request.question))
        return int(request.question)

    def predict(self, batch):
        return [{{"digest": compute(blocks)}} for blocks in batch]
"""
CONFIGURATION = """
[workers]
memory_max_bytes = "400M"
engine_path = ["/opt/models"]
engine = "heavy:Heavy"
execution_timeout_seconds = 120.0

[gateway]
request_timeout_seconds = 120.0
"""
# Much work and few wake-ups: to wake a halted CPU takes an emulated machine milliseconds that count
# as waiting, and are no queue. How many depends on the machine: what is asserted is a ratio.
BLOCKS = 48
REQUESTS = 2
LEAST_GAIN = 5  # times as long it waits without the plan; 14 and 15 were seen
PARTS: dict[str, Callable[[Thread], bool]] = {
    "all": lambda thread: True,
    "gpu": lambda thread: thread.name == "gpu",
    "loop": lambda thread: thread.number == thread.process and thread.main,
    "CPU processes": lambda thread: not thread.main,
}


@pytest.mark.long("tests/integration/test_worker_priority.py")
def test_what_the_kernel_does_with_a_worker_is_what_was_planned(node: Node) -> None:
    serve_with_a_heavy_model(node)
    each_thread_has_its_planned_priority(node)
    memory_lies_on_the_planned_node(node)
    a_busy_host_keeps_no_worker_waiting(node)
    what_the_kernel_refuses_is_said(node)


def serve_with_a_heavy_model(node: Node) -> None:
    node.run("mkdir -p /opt/models")
    node.put(HEAVY.encode(), "/opt/models/heavy.py")
    configure(node, CONFIGURATION, "/etc/gpuwarden/conf.d/50-node.toml")


def each_thread_has_its_planned_priority(node: Node) -> None:
    plan = json.loads(node.run("cat /run/gpuwarden/placement/plan.json").text)["data"]
    planned = {worker["number"]: worker["inference_priority"] for worker in plan["workers"]}
    # Worker 0 has one CPU beside the housekeeping one of its node, worker 1 has two.
    assert planned == {0: "normal", 1: "fifo:10"}
    assert any("worker 0 computes at normal priority" in text for text in plan["notes"])
    shown = json.loads(node.run("gpuwarden workers --json").text)
    assert {worker["number"]: worker["inference_priority"] for worker in shown} == planned
    for number, priority in planned.items():
        threads = threads_of(node, f"medgemma-worker@{number}")
        assert {t.priority for t in threads if t.name == "gpu"} == {priority}
        others = [thread for thread in threads if thread.name != "gpu"]
        assert len({thread.process for thread in others}) == 3  # with two CPU processes
        assert {(thread.priority, thread.nice) for thread in others} == {("normal", 0)}
        for pid in processes_of(node, f"medgemma-worker@{number}"):
            allowed = node.run(f"grep -E 'Max (nice|realtime) priority' /proc/{pid}/limits").text
            assert [line.split()[3:] for line in allowed.splitlines()] == [["0", "0"]] * 2
    # The kernel's own brake on real-time threads is as the distribution set it.
    assert node.run("cat /proc/sys/kernel/sched_rt_runtime_us").text == "950000"


def memory_lies_on_the_planned_node(node: Node) -> None:
    for number in (0, 1):  # each on the NUMA node of its number
        sizes = anonymous_bytes_by_node(node, main_pid(node, f"medgemma-worker@{number}"))
        share = sizes.get(number, 0) / sum(sizes.values())
        print(f"worker {number}: {share:.1%} of {sum(sizes.values()) >> 20} MiB on its node")
        assert sum(sizes.values()) > WEIGHTS_BYTES
        assert share >= 0.95


def a_busy_host_keeps_no_worker_waiting(node: Node) -> None:
    """The same work beside the same load: kept to the housekeeping CPUs; everywhere, no plan."""
    node.run("systemctl stop medgemma-worker@0", timeout_seconds=90)  # worker 1 answers all
    node.run("systemd-run --quiet --unit=busy stress-ng --cpu 4")
    wait_for(node, "[ $(pgrep --count --exact stress-ng-cpu) = 4 ]")
    keep_the_rest_on(node, "0")
    outside = measured(node, "with the plan, the host busy outside of it")
    keep_the_rest_on(node, "0-3")
    lift_the_plan(node)
    lifted = measured(node, "without the plan, the host busy everywhere")
    node.run("systemctl stop busy; systemctl start medgemma-worker@0", timeout_seconds=120)
    assert outside["all"].waiting_share * LEAST_GAIN <= lifted["all"].waiting_share


def keep_the_rest_on(node: Node, cpus: str) -> None:
    """Everything but the workers, the stress included, as housekeeping_exclusive does."""
    for unit in ("init.scope", "system.slice", "user.slice", "medgemma-control.slice"):
        node.run(f"systemctl set-property --runtime {unit} AllowedCPUs={cpus}")


def measured(node: Node, what: str) -> dict[str, Spent]:
    """A piece of work; what the worker, and its GPU thread alone, ran and waited for it."""
    before = threads_of(node, WORKER)
    answers = node.run(
        f"for i in $(seq {REQUESTS}); do curl --silent --max-time 120 -o /dev/null "
        f"-w '%{{http_code}} ' -F image=@/etc/hostname -F question={BLOCKS} "
        "http://127.0.0.1:7860/predict; done",
        timeout_seconds=300,
    ).text
    assert answers.split() == ["200"] * REQUESTS
    after = threads_of(node, WORKER)
    figures = {part: spent(after, part).since(spent(before, part)) for part in PARTS}
    told = ", ".join(
        f"{part} {figure.waiting_share:.1%} of {figure.running_nanoseconds / 1e9:.2f} s"
        for part, figure in figures.items()
    )
    print(f"waited {what}: {told}")
    return figures


def spent(threads: list[Thread], part: str) -> Spent:
    """What a part of the worker has run and waited: its GPU thread, its loop, all of it."""
    return Spent.of(thread for thread in threads if PARTS[part](thread))


def lift_the_plan(node: Node) -> None:
    """Let the same worker run as it would without a plan: anywhere, as everything else."""
    node.run(f"systemctl set-property --runtime {SLICE} AllowedCPUs=0-3")
    for pid in processes_of(node, WORKER):
        node.run(f"taskset --all-tasks --cpu-list --pid 0-3 {pid}")
    (gpu,) = [thread for thread in threads_of(node, WORKER) if thread.name == "gpu"]
    node.run(f"chrt --other --pid 0 {gpu.number}")
    assert {thread.priority for thread in threads_of(node, WORKER)} == {"normal"}


def what_the_kernel_refuses_is_said(node: Node) -> None:
    node.run(f"mkdir -p /run/systemd/system/{WORKER}.d")
    node.put(b"[Service]\nLimitRTPRIO=0\n", f"/run/systemd/system/{WORKER}.d/60-test.conf")
    node.run(f"systemctl daemon-reload; systemctl restart {WORKER}", timeout_seconds=180)
    wait_for_state(node, "running")
    (worker,) = json.loads(node.run("gpuwarden workers --json").text)[1:]
    assert worker["inference_priority"] == "nice:-10"
    told = "priority fifo:10 of the GPU thread was refused (Operation not permitted)"
    for text in (worker["last_error"], node.run(f"systemctl show -P StatusText {WORKER}").text):
        assert text.endswith(f"{told}: it runs at nice -10 instead")
    assert told in node.run(f"journalctl -u {WORKER} -o cat --no-pager").text
    (gpu,) = [thread for thread in threads_of(node, WORKER) if thread.name == "gpu"]
    assert (gpu.priority, gpu.nice) == ("normal", -10)
