# SPDX-License-Identifier: Apache-2.0
"""The states of the contract, as values that every layer shares."""

from enum import StrEnum


class WorkerState(StrEnum):
    """Life of a worker as the bus, the CLI and the journal name it."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    STUCK = "stuck"
    GHOST = "ghost"
    FAILED = "failed"


class ThermalState(StrEnum):
    """State of one card's thermal guard."""

    NORMAL = "normal"
    ALERT = "alert"
    CRITICAL = "critical"
    RECOVERING = "recovering"
    BLIND = "blind"
    RELEASED = "released"
    LOST = "lost"


class ServiceState(StrEnum):
    """State of the whole service (Manager.State)."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPING = "stopping"
