# SPDX-License-Identifier: Apache-2.0
"""All metrics of the node: their names, what they mean, their labels. The front door has its own.

A value that is unknown, or older than its writer promised, is left out, and ``component_stale``
says so.
"""

from gpuwarden.exposition.definition import Definitions

METERS = Definitions("gpuwarden")

COMPONENT_STALE = METERS.gauge(
    "component_stale",
    "1: what this component publishes is missing, of another boot or too old, and left out here.",
    "component",
    "gpu",
)
COMPONENT_AGE = METERS.gauge(
    "component_age_seconds", "Age of what this component has published last.", "component", "gpu"
)
BUILD_INFO = METERS.gauge("build_info", "1, with the version that answers.", "version")

# The service as the supervisor knows it.
SERVICE_STATE = METERS.gauge("service_state", "1 for the service's state, 0 for others.", "state")
SERVICE_PROBLEMS = METERS.gauge(
    "service_problems", "Things that are wrong; gpuwarden status names them."
)
SIMULATED = METERS.gauge("simulated", "1: these cards are simulated.")
WORKERS_READY = METERS.gauge("workers_ready", "Workers that can answer.")
WORKERS_PLANNED = METERS.gauge("workers_planned", "Workers that this node is to run.")
TUNING_FAULT = METERS.gauge(
    "tuning_fault", "1: the host is to be tuned, and something is wrong with that."
)

# Cards.
GPU_INFO = METERS.gauge("gpu_info", "1, with the card's UUID and name.", "gpu", "uuid", "name")
GPU_PRESENT = METERS.gauge("gpu_present", "0: a card that was there before is gone.", "gpu")
GPU_TEMPERATURE = METERS.gauge("gpu_temperature_celsius", "The die's temperature.", "gpu")
GPU_MEMORY_TEMPERATURE = METERS.gauge(
    "gpu_memory_temperature_celsius", "The memory's temperature.", "gpu"
)
GPU_POWER = METERS.gauge("gpu_power_watts", "Power drawn.", "gpu")
GPU_POWER_LIMIT = METERS.gauge("gpu_power_limit_watts", "The power limit in force.", "gpu")
GPU_ORIGINAL_POWER_LIMIT = METERS.gauge(
    "gpu_original_power_limit_watts", "The administrator's power limit, which comes back.", "gpu"
)
GPU_UTILIZATION = METERS.gauge(
    "gpu_utilization_ratio",
    "Share of time in which some kernel ran; says nothing of how much it did.",
    "gpu",
)
GPU_VRAM_USED = METERS.gauge("gpu_vram_used_bytes", "Memory of the card in use.", "gpu")
GPU_VRAM_SIZE = METERS.gauge("gpu_vram_size_bytes", "Memory that the card has.", "gpu")
GPU_SM_CLOCK_LOCK = METERS.gauge(
    "gpu_sm_clock_lock_hertz", "Where our lock holds the SM clock; absent without one.", "gpu"
)
GPU_THROTTLE = METERS.counter(
    "gpu_throttle_seconds",
    "Time since the boot in which this clock event reason held the clocks down.",
    "gpu",
    "reason",
)
GPU_THROTTLED = METERS.gauge(
    "gpu_throttled", "1: this clock event reason holds the clocks down now.", "gpu", "reason"
)
GPU_RECOVERY_ACTION = METERS.gauge(
    "gpu_recovery_action",
    "1, with what the driver says must be done to the card (none: nothing).",
    "gpu",
    "action",
)
GPU_XID_TIME = METERS.gauge(
    "gpu_xid_timestamp_seconds",
    "When the driver has last reported this error of the card since the boot.",
    "gpu",
    "xid",
)

# What the thermal guards do.
THERMAL_STATE = METERS.gauge(
    "thermal_state", "1 for the card's thermal state, 0 for others.", "gpu", "state"
)
THERMAL_STATE_START = METERS.gauge(
    "thermal_state_start_time_seconds", "When the card has entered its thermal state.", "gpu"
)
THERMAL_STATE_SECONDS = METERS.counter(
    "thermal_state_seconds", "Time since the boot in this thermal state.", "gpu", "state"
)
THERMAL_ALERT = METERS.gauge(
    "thermal_alert_celsius", "Above this temperature of the die the card is in alert.", "gpu"
)
THERMAL_CRITICAL = METERS.gauge(
    "thermal_critical_celsius", "Above this temperature of the die the card is critical.", "gpu"
)
THERMAL_SAFE = METERS.gauge(
    "thermal_safe_celsius", "At this temperature of the die the card has recovered.", "gpu"
)
THERMAL_THROTTLES = METERS.counter(
    "thermal_throttles", "Times since the boot that the card had to be cooled.", "gpu"
)
THERMAL_RECOVERIES = METERS.counter(
    "thermal_recoveries", "Times since the boot that the card got everything back.", "gpu"
)
THERMAL_BATCH_LIMIT = METERS.gauge(
    "thermal_batch_limit", "Requests that the card may run together; absent: any.", "gpu"
)
THERMAL_DUTY = METERS.gauge(
    "thermal_dispatch_duty_ratio", "Share of the time in which the card may work.", "gpu"
)
THERMAL_PAUSED = METERS.gauge(
    "thermal_admission_paused", "1: the card gets no new work until it is cooler.", "gpu"
)
THERMAL_STOP = METERS.gauge(
    "thermal_stop_requested", "1: cooling is not enough, the card's workers must stop.", "gpu"
)
THERMAL_ACTUATOR = METERS.gauge(
    "thermal_actuator_available", "0: the card can't be cooled by this means.", "gpu", "actuator"
)

# Workers.
WORKER_STATE = METERS.gauge(
    "worker_state", "1 for the worker's state, 0 for others.", "worker", "gpu", "state"
)
WORKER_STATE_START = METERS.gauge(
    "worker_state_start_time_seconds", "Since when the worker's unit is as it is.", "worker", "gpu"
)
WORKER_RESTARTS = METERS.counter(
    "worker_restarts", "Restarts by systemd; an operator's start begins anew.", "worker", "gpu"
)
WORKER_WANTED = METERS.gauge(
    "worker_wanted", "0: somebody has stopped this worker.", "worker", "gpu"
)
WORKER_HELD = METERS.gauge(
    "worker_held", "1, with why this worker is kept from starting.", "worker", "gpu", "reason"
)
WORKER_OUTDATED = METERS.gauge(
    "worker_outdated", "1: it runs by former settings until it is restarted.", "worker", "gpu"
)
WORKER_PROCESSES = METERS.gauge("worker_processes", "Processes of the worker.", "worker", "gpu")
WORKER_MEMORY = METERS.gauge(
    "worker_memory_bytes", "Main memory of the worker's processes.", "worker", "gpu"
)
WORKER_MEMORY_SOFT_LIMIT = METERS.gauge(
    "worker_memory_soft_limit_bytes",
    "Main memory above which the worker is restarted when it is idle.",
    "worker",
    "gpu",
)
WORKER_VRAM_RESERVED = METERS.gauge(
    "worker_vram_reserved_bytes", "Memory of the card that its allocator holds.", "worker", "gpu"
)
WORKER_VRAM_ALLOCATED = METERS.gauge(
    "worker_vram_allocated_bytes", "What of that is in use.", "worker", "gpu"
)
WORKER_VRAM_FRAGMENTATION = METERS.gauge(
    "worker_vram_fragmentation_ratio",
    "Share of the memory that its allocator holds and that is not in use.",
    "worker",
    "gpu",
)

# Who else holds a card's memory.
ORPHANS = METERS.gauge(
    "orphans",
    "Processes that hold the card's memory and are none of a running worker.",
    "gpu",
    "class",
)
ORPHANS_VRAM = METERS.gauge(
    "orphans_vram_bytes",
    "Memory of the card that they hold, as far as it is known.",
    "gpu",
    "class",
)
SCANS = METERS.counter("scans", "Looks at who holds the card's memory.", "gpu")
SCAN_INCOMPLETE = METERS.gauge(
    "scan_incomplete", "1: who holds the card's memory is not known for certain.", "gpu"
)
SCAN_HOLDERS = METERS.gauge("scan_holders", "Processes that hold memory of the card.", "gpu")
SCAN_UNEXPLAINED = METERS.gauge(
    "scan_unexplained_bytes", "Memory in use of which nobody was found to be the holder.", "gpu"
)
