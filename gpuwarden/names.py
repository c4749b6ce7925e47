# SPDX-License-Identifier: Apache-2.0
"""Names and places that the contract fixes: bus, units, files. Nothing else spells them."""

from pathlib import Path

BUS_NAME = "org.gpuwarden1"
ROOT_OBJECT = "/org/gpuwarden1"
LOG_CONTROL_OBJECT = "/org/freedesktop/LogControl1"  # where systemctl service-log-level looks
OPERATORS_GROUP = "gpuwarden"  # may read the bus; holds people only, no service
# polkit's actions; see packaging/polkit
MANAGE_WORKERS_ACTION = f"{BUS_NAME}.manage-workers"
REAP_ACTION = f"{BUS_NAME}.reap"
THERMAL_OVERRIDE_ACTION = f"{BUS_NAME}.thermal-override"
MANAGE_GATEWAY_ACTION = f"{BUS_NAME}.manage-gateway"
RELOAD_ACTION = f"{BUS_NAME}.reload"

GUARD_UNIT = "medgemma-guard.service"
SHUTDOWN_UNIT = "medgemma-shutdown.service"
NUMA_UNIT = "medgemma-numa.service"
GATEWAY_UNIT = "medgemma-gateway.service"
GATEWAY_SOCKET_UNIT = "medgemma-gateway.socket"
GATEWAY_LOCAL_SOCKET_UNIT = "medgemma-gateway-local.socket"
METRICS_SOCKET_UNIT = "medgemma-metrics.socket"
JOBS_KEY_UNIT = "medgemma-jobs-key.service"
DISPATCH_SOCKET_UNIT = "medgemma-dispatch.socket"
THERMAL_TARGET = "medgemma-thermal.target"
SCAN_TARGET = "medgemma-scan.target"
TUNING_UNIT = "medgemma-tuning.service"
SERVICE_SLICE = "medgemma.slice"
WORKERS_SLICE = "medgemma-workers.slice"
CONTROL_SLICE = "medgemma-control.slice"

# The distribution's tuner.
TUNED_UNIT = "tuned.service"
TUNED_BUS_NAME = "com.redhat.tuned"
TUNED_OBJECT = "/Tuned"
TUNED_INTERFACE = "com.redhat.tuned.control"
TUNED_PROFILE_CHANGED = "profile_changed"

CONFIG_FILE = Path("/etc/gpuwarden/gpuwarden.toml")
CONFIG_DIRECTORY = Path("/etc/gpuwarden/conf.d")
LIBRARY_DIRECTORY = Path("/usr/lib/gpuwarden")
RUN_DIRECTORY = Path("/run/gpuwarden")
STATE_DIRECTORY = Path("/var/lib/gpuwarden")

PLAN_FILE = RUN_DIRECTORY / "placement" / "plan.json"
GUARD_STATE_FILE = RUN_DIRECTORY / "guard" / "state.json"
PORT_HOLDER_FILE = RUN_DIRECTORY / "guard" / "port-holder.json"
ACCEPTED_CONFIGURATION_FILE = RUN_DIRECTORY / "guard" / "configuration.json"
GATEWAY_STATE_FILE = RUN_DIRECTORY / "gateway" / "state.json"
GATEWAY_MEMORY_FILE = RUN_DIRECTORY / "gateway" / "memory.json"
DISPATCH_SOCKET = RUN_DIRECTORY / "dispatch.sock"
GATEWAY_LOCAL_SOCKET = RUN_DIRECTORY / "http.sock"
GUARD_CONTROL_SOCKET = RUN_DIRECTORY / "guard.sock"
GATEWAY_CONTROL_SOCKET = RUN_DIRECTORY / "gateway.sock"
THERMAL_ORIGINALS_DIRECTORY = STATE_DIRECTORY / "thermal"
JOBS_DIRECTORY = STATE_DIRECTORY / "jobs"
BASELINES_DIRECTORY = STATE_DIRECTORY / "baselines"
CARDS_FILE = STATE_DIRECTORY / "cards.json"
TUNING_STATE_FILE = RUN_DIRECTORY / "tuning" / "state.json"
TUNING_RECORD_FILE = STATE_DIRECTORY / "tuning" / "former.json"


def worker_unit(number: int) -> str:
    """The unit of worker ``number``."""
    return f"medgemma-worker@{number}.service"


def worker_number(unit: str) -> int | None:
    """The number of the worker whose unit it is; None for another unit."""
    prefix, _, suffix = worker_unit(0).partition("0")
    number = unit.removeprefix(prefix).removesuffix(suffix)
    return int(number) if number.isdigit() and worker_unit(int(number)) == unit else None


def thermal_unit(gpu_index: int) -> str:
    """The unit that guards card ``gpu_index``."""
    return f"medgemma-thermal@{gpu_index}.service"


def scan_unit(gpu_index: int) -> str:
    """The unit that lists who holds the memory of card ``gpu_index``."""
    return f"medgemma-scan@{gpu_index}.service"


def hook_unit(number: int, gpu_index: int) -> str:
    """The unit that runs hook ``number`` of [thermal] for card ``gpu_index``."""
    return f"medgemma-hook@{number}-{gpu_index}.service"


def gpu_slice(gpu_index: int, variant: str = "") -> str:
    """The slice that holds the workers of card ``gpu_index``.

    :param variant: a letter where workers of a former plan still run in the one without.
    """
    return f"medgemma-workers-gpu{gpu_index}{variant}.slice"


def tuning_unit(wish: str) -> str:
    """The unit that has the host tuned to ``wish``: day, night, now or off."""
    return f"medgemma-tuning@{wish}.service"


def tuning_timer(time_of_day: str) -> str:
    """The timer at which ``time_of_day`` begins: day or night."""
    return f"medgemma-tuning-{time_of_day}.timer"


def thermal_snapshot_file(gpu_index: int) -> Path:
    """The snapshot that the thermal guard of card ``gpu_index`` publishes."""
    return RUN_DIRECTORY / "thermal" / f"{gpu_index}.json"


def thermal_control_socket(gpu_index: int) -> Path:
    """Where the thermal guard of card ``gpu_index`` is asked."""
    return RUN_DIRECTORY / f"thermal-{gpu_index}.sock"


def thermal_lease_file(gpu_index: int) -> Path:
    """The running override or release of card ``gpu_index``: it outlives its thermal guard."""
    return RUN_DIRECTORY / "thermal" / f"{gpu_index}.lease.json"


def scan_snapshot_file(gpu_index: int) -> Path:
    """The snapshot that the scan of card ``gpu_index`` publishes."""
    return RUN_DIRECTORY / "scan" / f"{gpu_index}.json"


def gpu_object(gpu_index: int) -> str:
    """The bus object of card ``gpu_index``."""
    return f"{ROOT_OBJECT}/gpu/{gpu_index}"


def worker_object(number: int) -> str:
    """The bus object of worker ``number``."""
    return f"{ROOT_OBJECT}/worker/{number}"
