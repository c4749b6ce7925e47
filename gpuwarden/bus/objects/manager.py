"""org.gpuwarden1.Manager: the service as a whole."""

from collections.abc import Sequence

from gpuwarden.bus.interface import Argument, Emits, Interface, Method, Property, Signal
from gpuwarden.control.states import GuardData
from gpuwarden.names import BUS_NAME, gpu_object, worker_object


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
    ),
)
