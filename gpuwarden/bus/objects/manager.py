# SPDX-License-Identifier: Apache-2.0
"""org.gpuwarden1.Manager: the service as a whole."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gpuwarden.bus.interface import Argument, Emits, Handler, Interface, Method, Property, Signal
from gpuwarden.control.states import GuardData
from gpuwarden.names import (
    BUS_NAME,
    MANAGE_WORKERS_ACTION,
    REAP_ACTION,
    RELOAD_ACTION,
    gpu_object,
    worker_object,
)


class ManagerCommands(Protocol):
    """What answers the methods that change something. Each raises BusError.

    Those of workers return when accepted; WorkerStateChanged tells how it goes on.
    """

    async def start(self, number: int) -> None:
        """Start a worker, or give a drained one work again."""

    async def stop(self, number: int) -> None:
        """Drain and stop a worker; it stays down until somebody starts it."""

    async def restart(self, number: int) -> None:
        """Drain and stop a worker, and start it again."""

    async def drain(self, number: int) -> None:
        """Give a worker no new work; it stays up."""

    async def rolling_restart(self) -> None:
        """Restart all workers, one card at a time."""

    async def reload(self) -> None:
        """Take changed configuration files into use; Failed says who kept the former ones."""

    async def reap(self, pid: int) -> int:
        """End a process that holds a card's memory; the bytes that came free."""


def manager_handlers(commands: ManagerCommands) -> Mapping[str, Handler]:
    """What answers each method of the interface that changes something."""

    async def start_worker(number: int) -> Sequence[object]:
        await commands.start(number)
        return ()

    async def stop_worker(number: int) -> Sequence[object]:
        await commands.stop(number)
        return ()

    async def restart_worker(number: int) -> Sequence[object]:
        await commands.restart(number)
        return ()

    async def drain_worker(number: int) -> Sequence[object]:
        await commands.drain(number)
        return ()

    async def rolling_restart() -> Sequence[object]:
        await commands.rolling_restart()
        return ()

    async def reload() -> Sequence[object]:
        await commands.reload()
        return ()

    async def reap_orphan(pid: int) -> Sequence[object]:
        return (await commands.reap(pid),)

    return {
        "StartWorker": start_worker,
        "StopWorker": stop_worker,
        "RestartWorker": restart_worker,
        "DrainWorker": drain_worker,
        "RollingRestart": rolling_restart,
        "Reload": reload,
        "ReapOrphan": reap_orphan,
    }


def _orphans(data: GuardData) -> Sequence[object]:
    rows = [
        (each.pid, each.gpu, each.orphan_class, each.command, each.vram_bytes)
        for each in data.orphans
    ]
    return (rows,)


def _workers(data: GuardData) -> Sequence[object]:
    rows = [
        (each.number, worker_object(each.number), each.unit, each.state, each.main_pid)
        for each in data.workers
    ]
    return (rows,)


def _gpus(data: GuardData) -> Sequence[object]:
    rows = [
        (each.index, gpu_object(each.index), each.uuid, each.name, each.state) for each in data.gpus
    ]
    return (rows,)


MANAGER: Interface[GuardData] = Interface(
    f"{BUS_NAME}.Manager",
    "The service as a whole: what it is made of and how it is.",
    methods=(
        Method(
            "ListWorkers",
            "All workers: number, object, unit, state and main PID (0: none).",
            outputs=(Argument("workers", "a(uossu)"),),
            answer=_workers,
        ),
        Method(
            "ListGpus",
            "All cards: index, object, UUID, product name and thermal state.",
            outputs=(Argument("gpus", "a(uosss)"),),
            answer=_gpus,
        ),
        Method(
            "StartWorker",
            "Start a worker, or give a drained one work again. Returns when accepted; "
            "WorkerStateChanged tells how it goes on. Busy while something is done with it.",
            inputs=(Argument("worker", "u"),),
            action=MANAGE_WORKERS_ACTION,
        ),
        Method(
            "StopWorker",
            "Let a worker finish what it does, then stop it; it stays down until it is started. "
            "Returns when accepted. Busy while something is done with it.",
            inputs=(Argument("worker", "u"),),
            action=MANAGE_WORKERS_ACTION,
        ),
        Method(
            "RestartWorker",
            "Let a worker finish what it does, then stop it and start it again. Returns when "
            "accepted. Busy while something is done with it.",
            inputs=(Argument("worker", "u"),),
            action=MANAGE_WORKERS_ACTION,
        ),
        Method(
            "DrainWorker",
            "Give a worker no new work; it finishes what it has and stays up until it is started "
            "or stopped. Returns when accepted. Busy while something is done with it.",
            inputs=(Argument("worker", "u"),),
            action=MANAGE_WORKERS_ACTION,
        ),
        Method(
            "RollingRestart",
            "Restart all workers, one card at a time, each after the former is ready again. "
            "Returns when accepted. Busy while something is done with any of them.",
            action=MANAGE_WORKERS_ACTION,
        ),
        Method(
            "ListOrphans",
            "Processes that hold a card's memory and belong to no running worker: PID, card, "
            "class, command name, bytes (0: unknown).",
            outputs=(Argument("orphans", "a(uusst)"),),
            answer=_orphans,
        ),
        Method(
            "ReapOrphan",
            "End one of the processes that ListOrphans lists: SIGTERM, then SIGKILL. Answers when "
            "it is gone, with the bytes of the card's memory that came free.",
            inputs=(Argument("pid", "u"),),
            outputs=(Argument("freed_bytes", "t"),),
            action=REAP_ACTION,
        ),
        Method(
            "Reload",
            "Take changed configuration files into use. Failed says what is wrong with them, or "
            "who kept the former ones and why.",
            action=RELOAD_ACTION,
        ),
        Method(
            "GetStatus",
            "Everything at once, as JSON; null stands for unknown.",
            outputs=(Argument("status", "s"),),
            answer=lambda data: (data.model_dump_json(),),
        ),
    ),
    properties=(
        Property("Version", "s", Emits.CONST, lambda data: data.version, "The package's version."),
        Property(
            "Simulated",
            "b",
            Emits.TRUE,
            lambda data: data.simulated,
            "Whether the cards are simulated: no figure then says anything about a real card.",
        ),
        Property(
            "State",
            "s",
            Emits.TRUE,
            lambda data: data.state,
            "starting until each worker was ready once, then running or degraded; stopping at the "
            "end. GetStatus gives the reasons.",
        ),
        Property(
            "WorkersReady",
            "u",
            Emits.TRUE,
            lambda data: data.workers_ready,
            "Workers that can answer now.",
        ),
        Property(
            "WorkersTotal",
            "u",
            Emits.TRUE,
            lambda data: data.workers_total,
            "Workers that the placement plan has.",
        ),
        Property(
            "Profile",
            "s",
            Emits.TRUE,
            lambda data: data.profile,
            "The host's tuning profile in force; empty where tuning is off.",
        ),
    ),
    signals=(
        Signal(
            "WorkerStateChanged",
            "A worker went from one state to another.",
            (
                Argument("worker", "u"),
                Argument("old_state", "s"),
                Argument("new_state", "s"),
                Argument("reason", "s"),
            ),
        ),
        Signal(
            "OrphanFound",
            "A process holds a card's memory and belongs to no running worker.",
            (Argument("pid", "u"), Argument("gpu", "u"), Argument("class", "s")),
        ),
        Signal(
            "OrphanReaped",
            "Such a process was ended; so many bytes of the card's memory came free.",
            (Argument("pid", "u"), Argument("freed_bytes", "t")),
        ),
    ),
)
