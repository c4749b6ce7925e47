# SPDX-License-Identifier: Apache-2.0
"""Which commands would help, given a status. Pure."""

import re
from collections.abc import Iterable, Iterator

from gpuwarden import names
from gpuwarden.cli.gpus import BAD_STATES as BAD_GPU_STATES
from gpuwarden.cli.orphans import EXPECTED
from gpuwarden.control.states import GuardData, Orphan, ThermalData, WorkerStatus
from gpuwarden.values import ServiceState, ThermalState, WorkerState

ADVICE_LIMIT = 6  # the screen has 24 lines; the first causes explain the later ones

Advice = tuple[str, str]

_GATEWAY_UNITS = f"{names.GATEWAY_SOCKET_UNIT} {names.GATEWAY_UNIT}"
_NO_REQUESTS = (f"systemctl status {_GATEWAY_UNITS}", "why no requests are taken")
RESUME = f"busctl call {names.BUS_NAME} {names.ROOT_OBJECT}/gateway {names.BUS_NAME}.Gateway Resume"
ASK_DRIVER = ("journalctl -k -g 'NVRM|Xid' -n 20", "what the driver says of the cards")
ANYTHING = ("gpuwarden logs -n 50", "what led to this state")
RELOAD = ("gpuwarden reload", "takes it into use, once it is right")
REFUSED = r"^the (former )?configuration (is in use|does not fit)"

# What helps against a reason that GuardData gives: by its words, in the order of their weight.
# What is said of a worker or a card is advised by that worker's or card's own state, below.
BY_REASON: tuple[tuple[str, tuple[Advice, ...]], ...] = (
    (
        r"^jobs can't be kept",
        (
            (f"systemctl status {names.JOBS_KEY_UNIT}", "whether the jobs have their key"),
            ("gpuwarden logs --event job-store-refused", "why no jobs are taken"),
        ),
    ),
    (
        REFUSED,
        (
            ("gpuwarden config check", "what is wrong with the configuration"),
            RELOAD,
        ),
    ),
    (
        r"the host is not tuned",
        (
            (f"systemctl status {names.TUNING_UNIT}", "why the host is not tuned"),
            ("gpuwarden reload", "tries again"),
        ),
    ),
    (
        r"^systemd says nothing",
        (("journalctl -b -n 20 _PID=1", "what systemd is busy with"),),
    ),
    (
        r"plan|driver|\bNVML\b|no cards?\b|which CPUs there are",
        (
            (f"systemctl status {names.NUMA_UNIT}", "why there is no good plan"),
            ("gpuwarden doctor", "driver, cards and placement, looked at one by one"),
        ),
    ),
    (
        r"is held by|HTTP port|gateway|front door",
        (_NO_REQUESTS,),
    ),
    (
        rf"{re.escape(names.GUARD_UNIT)}|bus",
        ((f"systemctl status {names.GUARD_UNIT}", "is the service up, and why not"),),
    ),
)
# What the card itself asks for (Gpu.RecoveryAction).
_NO_RECOVERY = ("none", "unknown", "")
_RESET: Advice = (
    "gpuwarden thermal release {} 600",
    "then nvidia-smi -r -i {}: it asks for a reset",
)
_REBOOT: Advice = ("systemctl reboot", "gpu {} asks for it")
_RECOVERY: dict[str, Advice] = {
    "gpu-reset": _RESET,
    "drain-and-reset": _RESET,
    "bus-reset": _RESET,
    "node-reboot": _REBOOT,
    "system-reboot": _REBOOT,
}
_NEEDS_THE_SERVICE = (
    *("gpuwarden workers", "gpuwarden reap", "gpuwarden reload", "gpuwarden thermal release"),
    "busctl",
)
_STRAY = re.compile(r"worker (\d+) runs and is not planned")


def advice(data: GuardData, *, live: bool, is_mended: bool = False) -> list[Advice]:
    """(command, what it tells or does), the most useful first; empty when all is well.

    :param is_mended: whether the files of a configuration that was refused are right now.
    """
    helpful = [*_of_the_service(data, live=live, is_mended=is_mended)]
    for worker in data.workers:
        helpful += _of_worker(worker, data)
    for gpu in data.gpus:
        helpful += _of_card(gpu)
    for orphan in data.orphans:
        helpful += _of_orphan(orphan)
    helpful += _of_scans(data)
    if data.gateway is not None and data.gateway.paused_until is not None:
        helpful.append((RESUME, "takes requests again, before the pause ends by itself"))
    if not live:
        helpful = [each for each in helpful if not each[0].startswith(_NEEDS_THE_SERVICE)]
    elif not helpful and data.state is ServiceState.DEGRADED:
        helpful.append(ANYTHING)
    return list(dict.fromkeys(helpful))[:ADVICE_LIMIT]


def _of_the_service(data: GuardData, *, live: bool, is_mended: bool) -> Iterator[Advice]:
    if not live:
        yield f"systemctl status {names.GUARD_UNIT}", "is the service up, and why not"
        yield f"systemctl start {names.GUARD_UNIT}", "starts it; what runs goes on"
        yield ANYTHING
    for reason in data.reasons:
        if data.state is ServiceState.STARTING and reason.startswith("the gateway says nothing"):
            continue  # what is not there yet is no fault
        if stray := _STRAY.search(reason):
            yield f"systemctl stop {names.worker_unit(int(stray[1]))}", "ends a worker of no plan"
        elif is_mended and says_refused(reason):
            yield "gpuwarden reload", "takes the configuration into use: its files are right now"
        else:
            yield from by_words(reason)
    if data.gateway is None and data.state is not ServiceState.STARTING:
        yield _NO_REQUESTS


def says_refused(reason: str) -> bool:
    """Whether a reason says that the configuration's files were refused."""
    return bool(re.search(REFUSED, reason))


def by_words(reason: str) -> Iterable[Advice]:
    """What helps against a reason, by its words alone."""
    if re.match(r"(worker|GPU) \d", reason):
        return ()  # the worker's or card's own state says more
    return next((each for pattern, each in BY_REASON if re.search(pattern, reason)), ())


def _of_worker(worker: WorkerStatus, data: GuardData) -> Iterator[Advice]:
    number = worker.number
    if worker.operation:
        return  # something is done about it already
    if worker.held == "heat":
        yield f"gpuwarden thermal {worker.gpu}", "what keeps it cool, and its last hour"
    if worker.state is WorkerState.FAILED:
        yield f"gpuwarden logs --worker {number}", f"why worker {number} is failed"
        yield f"gpuwarden workers start {number}", "once that is mended; else it is tried by itself"
    elif worker.state in (WorkerState.STUCK, WorkerState.GHOST):
        yield f"gpuwarden logs --worker {number}", f"why worker {number} is {worker.state}"
        yield f"gpuwarden workers restart {number}", "if it is not restarted by itself"
    elif worker.state is WorkerState.STOPPED and not worker.held:
        if data.state is not ServiceState.STOPPING:
            yield f"gpuwarden workers start {number}", f"starts worker {number}"
    elif worker.state is WorkerState.DRAINING:
        if data.gateway is not None and number in data.gateway.drained:
            yield f"gpuwarden workers start {number}", f"gives worker {number} work again"
        else:
            yield f"gpuwarden logs --worker {number} -f", "it stops when it has finished"
    elif worker.state in (WorkerState.STARTING, WorkerState.LOADING):
        if data.state is ServiceState.DEGRADED:
            yield f"gpuwarden logs --worker {number} -f", f"how worker {number} starts again"
    elif worker.outdated:
        yield f"gpuwarden workers restart {number}", "runs it by the settings of now"


def _of_card(gpu: ThermalData) -> Iterator[Advice]:
    index = gpu.index
    if gpu.state in BAD_GPU_STATES or gpu.stop_requested:
        yield f"gpuwarden logs --gpu {index}", f"why gpu {index} is {gpu.state}"
    if gpu.state in (ThermalState.ALERT, ThermalState.CRITICAL):
        yield f"gpuwarden thermal {index}", "what keeps it cool, and its last hour"
    if gpu.state is ThermalState.BLIND:
        yield f"systemctl status {names.thermal_unit(index)}", "is its guard up, and why not"
    if gpu.state is ThermalState.LOST:
        yield ASK_DRIVER
    if gpu.state is ThermalState.RELEASED:
        yield f"gpuwarden thermal clear-override {index}", "guards it again, before that ends"
    if gpu.recovery_action not in _NO_RECOVERY:
        command, what = _RECOVERY.get(gpu.recovery_action, ASK_DRIVER)
        yield command.format(index), what.format(index)


def _of_orphan(orphan: Orphan) -> Iterator[Advice]:
    if orphan.orphan_class not in EXPECTED:
        yield "gpuwarden orphans", "who holds memory and should not"
        if orphan.orphan_class in ("foreign", "hidden", "ours-dead"):
            yield f"gpuwarden reap {orphan.pid}", f"ends {orphan.command} and frees its memory"


def _of_scans(data: GuardData) -> Iterator[Advice]:
    for gpu, why in sorted(data.scans.items()):
        if why:
            yield f"gpuwarden logs --gpu {gpu}", f"why nobody sees who holds gpu {gpu}"
