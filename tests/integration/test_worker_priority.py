# SPDX-License-Identifier: Apache-2.0
"""What a real kernel gives the GPU thread of a real worker, and nothing else of it."""

import contextlib
import os
import resource
from pathlib import Path

from gpuwarden.guard.kernel import inference_priority
from gpuwarden.worker.frames import FrameType
from tests.integration.worker_peer import Node, children_of

RESET_ON_FORK = 0x40000000
# Root without a capability, whom no limit allows anything: what its unit gives a worker is tried on
# the node (tests/system/test_priority.py). Here root's own CAP_SYS_NICE stands for it.
POWERLESS = (
    *("prlimit", "--rtprio=0:0", "--nice=0:0"),
    *("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
)
NORMAL = [os.SCHED_OTHER, 0]


def others_of(pid: int) -> set[tuple[int, int]]:
    """Policy and nice of every thread of the worker and its children but the GPU thread."""
    seen = set()
    for process in (pid, *children_of(pid)):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                if (thread / "comm").read_text() != "gpu\n":
                    number = int(thread.name)
                    nice = os.getpriority(os.PRIO_PROCESS, number)
                    seen.add((os.sched_getscheduler(number), nice))
    return seen


async def test_the_gpu_thread_alone_is_raised_and_what_it_starts_is_normal(node: Node) -> None:
    async with node.worker(engine="model_classes:Starting", inference_priority="fifo:10") as worker:
        connection = await node.accept_ready()
        assert inference_priority(worker.pid) == "fifo:10"
        assert others_of(worker.pid) == {tuple(NORMAL)}
        for process in (worker.pid, *children_of(worker.pid)):
            for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
                assert resource.prlimit(process, limit) == (0, 0)  # nobody else, from now on
        connection.job(1)
        answer = (await connection.results(1))[1].meta["answer"]
        assert answer["gpu"] == [os.SCHED_FIFO | RESET_ON_FORK, 0]
        assert (answer["thread"], answer["process"]) == (NORMAL, NORMAL)
        await node.told_systemd("STATUS=ready: 1 answered, 0 running")


async def test_it_loads_and_warms_up_at_normal_priority(node: Node) -> None:
    here, go = node.gate("here"), node.gate("go")
    async with node.worker(
        engine="model_classes:Scripted",
        inference_priority="fifo:10",
        options={"say_in_load": here.path, "wait_in_load": go.path},
    ) as worker:
        await here.reached()
        assert inference_priority(worker.pid) == "normal"
        go.open()
        await node.accept_ready()
        assert inference_priority(worker.pid) == "fifo:10"


async def test_what_the_kernel_refuses_is_told_to_all_and_the_worker_serves(node: Node) -> None:
    told = (
        "priority fifo:10 of the GPU thread was refused (Operation not permitted), and "
        "nice -10, too (Permission denied): it runs as all others"
    )
    async with node.worker(
        within=POWERLESS, engine="model_classes:Starting", inference_priority="fifo:10"
    ) as worker:
        connection = await node.accept()
        ready = await connection.next_state("ready")
        assert ready.meta["error"] == told
        assert inference_priority(worker.pid) == "normal"
        await connection.next_of(FrameType.CREDIT)
        connection.job(1)
        assert (await connection.results(1))[1].meta["ok"]
        await node.told_systemd(f"STATUS=ready: 1 answered, 0 running; {told}")
        assert told in worker.log()


async def test_a_worker_that_is_planned_normal_asks_for_nothing(node: Node) -> None:
    async with node.worker(engine="model_classes:Starting") as worker:
        connection = await node.accept()
        await connection.next_state("ready")
        assert inference_priority(worker.pid) == "normal"
