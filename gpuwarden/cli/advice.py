"""Which commands would help, given a status. Pure."""

from gpuwarden import names
from gpuwarden.cli.gpus import BAD_STATES as BAD_GPU_STATES
from gpuwarden.cli.workers import BAD_STATES as BAD_WORKER_STATES
from gpuwarden.control.states import GuardData
from gpuwarden.values import ServiceState, ThermalState, WorkerState

ADVICE_LIMIT = 6  # the screen has 24 lines; the first causes explain the later ones


def advice(data: GuardData, *, live: bool) -> list[tuple[str, str]]:
    """(command, what it tells or does), the most useful first; empty when all is well."""
    helpful = []
    if not live:
        helpful.append((f"systemctl status {names.GUARD_UNIT}", "is the service up, and why not"))
    if any("configuration" in reason for reason in data.reasons):
        helpful.append(("gpuwarden config check", "what is wrong with the configuration"))
    for worker in data.workers:
        if worker.state in BAD_WORKER_STATES:
            why = f"why worker {worker.number} is {worker.state}"
            helpful.append((f"journalctl -u {worker.unit} -n 50", why))
    for gpu in data.gpus:
        if gpu.state in BAD_GPU_STATES:
            why = f"why gpu {gpu.index} is {gpu.state}"
            helpful.append((f"journalctl -u {names.thermal_unit(gpu.index)} -n 50", why))
        if gpu.state is ThermalState.LOST:
            helpful.append(("journalctl -k -g 'NVRM|Xid'", "what the driver says of lost cards"))
    if data.gateway is None and data.state is not ServiceState.STARTING:
        units = f"{names.GATEWAY_SOCKET_UNIT} {names.GATEWAY_UNIT}"
        helpful.append((f"systemctl status {units}", "why no requests are taken"))
    for worker in data.workers:
        if worker.state is WorkerState.STOPPED and data.state is not ServiceState.STOPPING:
            helpful.append((f"systemctl start {worker.unit}", f"starts worker {worker.number}"))
    if not helpful and data.state is ServiceState.DEGRADED:
        helpful.append((f"journalctl -u {names.GUARD_UNIT} -n 50", "what led to this state"))
    return list(dict.fromkeys(helpful))[:ADVICE_LIMIT]
