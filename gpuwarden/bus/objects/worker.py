# SPDX-License-Identifier: Apache-2.0
"""org.gpuwarden1.Worker: one model worker."""

from collections.abc import Mapping, Sequence

from gpuwarden.bus.interface import Emits, Handler, Interface, Method, Property
from gpuwarden.bus.objects.manager import ManagerCommands
from gpuwarden.control.states import WorkerStatus
from gpuwarden.names import BUS_NAME, MANAGE_WORKERS_ACTION


def worker_handlers(commands: ManagerCommands, number: int) -> Mapping[str, Handler]:
    """What answers each method of the interface, for one worker."""

    async def start() -> Sequence[object]:
        await commands.start(number)
        return ()

    async def stop() -> Sequence[object]:
        await commands.stop(number)
        return ()

    async def restart() -> Sequence[object]:
        await commands.restart(number)
        return ()

    async def drain() -> Sequence[object]:
        await commands.drain(number)
        return ()

    return {"Start": start, "Stop": stop, "Restart": restart, "Drain": drain}


WORKER: Interface[WorkerStatus] = Interface(
    f"{BUS_NAME}.Worker",
    "One model worker: a process of its own in its own unit.",
    methods=(
        Method("Start", "As Manager.StartWorker.", action=MANAGE_WORKERS_ACTION),
        Method("Stop", "As Manager.StopWorker.", action=MANAGE_WORKERS_ACTION),
        Method("Restart", "As Manager.RestartWorker.", action=MANAGE_WORKERS_ACTION),
        Method("Drain", "As Manager.DrainWorker.", action=MANAGE_WORKERS_ACTION),
    ),
    properties=(
        Property("Number", "u", Emits.CONST, lambda worker: worker.number, "Its number."),
        Property("Unit", "s", Emits.CONST, lambda worker: worker.unit, "Its systemd unit."),
        Property(
            "State",
            "s",
            Emits.TRUE,
            lambda worker: worker.state,
            "stopped, starting, loading, ready, busy, draining, stuck, ghost or failed.",
        ),
        Property(
            "MainPid",
            "u",
            Emits.TRUE,
            lambda worker: worker.main_pid,
            "Main process; 0 while there is none.",
        ),
        Property("Gpu", "u", Emits.TRUE, lambda worker: worker.gpu, "Index of its card."),
        Property("GpuUuid", "s", Emits.TRUE, lambda worker: worker.gpu_uuid, "UUID of its card."),
        Property(
            "NumaNode",
            "i",
            Emits.TRUE,
            lambda worker: worker.numa_node,
            "NUMA node it runs on; -1: unknown.",
        ),
        Property(
            "Cpus",
            "s",
            Emits.TRUE,
            lambda worker: worker.cpus,
            "CPUs it may use, as a kernel CPU list such as 2-5,8.",
        ),
        Property(
            "ProcessCount",
            "u",
            Emits.FALSE,
            lambda worker: worker.process_count,
            "Processes in its cgroup, all generations.",
        ),
        Property(
            "Requests",
            "u",
            Emits.FALSE,
            lambda worker: worker.requests,
            "Requests that it answered since it started.",
        ),
        Property(
            "Failures",
            "u",
            Emits.FALSE,
            lambda worker: worker.failures,
            "Requests that failed in it since it started.",
        ),
        Property(
            "Restarts",
            "u",
            Emits.FALSE,
            lambda worker: worker.restarts,
            "Times it was started again without being asked to.",
        ),
        Property(
            "VramReservedBytes",
            "t",
            Emits.FALSE,
            lambda worker: worker.vram_reserved_bytes,
            "Card memory that its allocator holds; 0: unknown.",
        ),
        Property(
            "VramAllocatedBytes",
            "t",
            Emits.FALSE,
            lambda worker: worker.vram_allocated_bytes,
            "Card memory in use within what is held; 0: unknown.",
        ),
        Property(
            "VramFragmentation",
            "d",
            Emits.FALSE,
            lambda worker: worker.vram_fragmentation,
            "Share of the held card memory that is not in use, 0 to 1; NaN: unknown.",
        ),
        Property(
            "LastError",
            "s",
            Emits.TRUE,
            lambda worker: worker.last_error,
            "Why it last failed; empty: it did not. Never holds patients' data.",
        ),
        Property(
            "Since",
            "t",
            Emits.TRUE,
            lambda worker: worker.since,
            "When it entered its state, in microseconds since 1970.",
        ),
    ),
)
