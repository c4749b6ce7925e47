# SPDX-License-Identifier: Apache-2.0
"""Journal events: one MESSAGE_ID each, for the catalogue to explain and for tooling to find.

Each has an entry in packaging/catalog/gpuwarden.catalog, which ``journalctl -x`` shows with it. An
entry names the fields that it fills in; every :func:`tell` of its event has to give them.
"""

import logging
from collections.abc import Callable, Mapping
from enum import Enum

log = logging.getLogger("gpuwarden")
# Who changed what is told whatever level is set: a caller must not be able to act unseen.
always_log = logging.getLogger("gpuwarden.changes")
always_log.setLevel(logging.INFO)


class Event(Enum):
    """An event's name in the field GPUWARDEN_EVENT and its MESSAGE_ID."""

    SERVICE_STATE = ("service-state", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e01")
    WORKER_STATE = ("worker-state", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e02")
    WORKER_RETRY = ("worker-retry", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e03")
    CONFIGURATION_REFUSED = ("configuration-refused", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e04")
    CONFIGURATION_ACCEPTED = ("configuration-accepted", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e05")
    PORT_TAKEN = ("port-taken", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e06")
    THERMAL_STATE = ("thermal-state", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e08")
    THERMAL_THRESHOLDS = ("thermal-thresholds", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e09")
    THERMAL_THRESHOLDS_REFUSED = (
        "thermal-thresholds-refused",
        "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e0a",
    )
    THERMAL_WRITE = ("thermal-write", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e0b")
    THERMAL_REFUSED = ("thermal-refused", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e0c")
    THERMAL_OUTSIDE_CHANGE = ("thermal-outside-change", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e0d")
    THERMAL_OUTSIDE_FIGHT = ("thermal-outside-fight", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e0e")
    THERMAL_RESTORED = ("thermal-restored", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e0f")
    THERMAL_ORIGINALS = ("thermal-originals", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e10")
    THERMAL_ORIGINALS_SET_ASIDE = (
        "thermal-originals-set-aside",
        "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e11",
    )
    SENSOR_LOST = ("sensor-lost", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e12")
    SENSOR_REGAINED = ("sensor-regained", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e13")
    SENSOR_IMPLAUSIBLE = ("sensor-implausible", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e14")
    XID = ("xid", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e15")
    OVERRIDE_STARTED = ("override-started", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e16")
    OVERRIDE_ENDED = ("override-ended", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e17")
    CARD_RELEASED = ("card-released", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e18")
    CARD_TAKEN_BACK = ("card-taken-back", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e19")
    STOP_REQUESTED = ("stop-requested", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e1a")
    WORKERS_STOPPED_FOR_HEAT = ("workers-stopped-for-heat", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e1b")
    WORKERS_STARTED_AFTER_HEAT = ("workers-started-after-heat", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e1c")
    HOOK_FAILED = ("hook-failed", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e1d")
    CHANGE_GRANTED = ("change-granted", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e1e")
    CHANGE_DENIED = ("change-denied", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e1f")
    CHANGES_DENIED = ("changes-denied", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e82")
    GATEWAY_HEAT = ("gateway-heat", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e20")
    GATEWAY_PAUSED = ("gateway-paused", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e80")
    GATEWAY_RESUMED = ("gateway-resumed", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e81")
    ECO_MODE = ("eco-mode", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7ea0")
    API_KEY_REFUSED = ("api-key-refused", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7ea1")
    REQUEST_SET_ASIDE = ("request-set-aside", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7ea2")
    RESULT_DISCARDED = ("result-discarded", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eac")
    JOB_STORE_OPEN = ("job-store-open", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eb0")
    JOB_STORE_REFUSED = ("job-store-refused", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eb1")
    JOB_STORE_SET_ASIDE = ("job-store-set-aside", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eb2")
    JOBS_RECOVERED = ("jobs-recovered", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eb3")
    JOB_STORE_FULL = ("job-store-full", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eb4")
    JOB_GIVEN_UP = ("job-given-up", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eb5")
    JOB_RESULT_GIVEN_UP = ("job-result-given-up", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7ea6")
    WORKER_OUTDATED = ("worker-outdated", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e30")
    PLAN_STALE = ("plan-stale", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e31")
    TUNING_PROFILE = ("tuning-profile", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e40")
    TUNING_DIFFERS = ("tuning-differs", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e41")
    TUNING_RESTORED = ("tuning-restored", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e42")
    TUNING_LEFT_OUT = ("tuning-left-out", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e43")
    TUNING_FAILED = ("tuning-failed", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e44")
    SCAN_BLIND = ("scan-blind", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e50")
    SCAN_SEES = ("scan-sees", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e51")
    SCAN_HIDDEN = ("scan-hidden", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e52")
    SCAN_UNEXPLAINED = ("scan-unexplained", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e53")
    ORPHAN_FOUND = ("orphan-found", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e60")
    ORPHAN_REAPED = ("orphan-reaped", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e61")
    ORPHAN_NOT_REAPED = ("orphan-not-reaped", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e62")
    WORKER_GHOST = ("worker-ghost", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e63")
    WORKER_STUCK = ("worker-stuck", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e64")
    WORKER_RECYCLED = ("worker-recycled", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e65")
    WORKER_NEEDS_MEMORY = ("worker-needs-memory", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e66")
    WORKER_NOT_LISTED = ("worker-not-listed", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e67")
    WORKER_CARD_LOST = ("worker-card-lost", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e68")
    WORKER_ENDED = ("worker-ended", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e70")
    WORKER_DIED = ("worker-died", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e71")
    WORKER_LEFT_SOMETHING = ("worker-left-something", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e72")
    WORKER_KILLED = ("worker-killed", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e73")
    WORKER_OPERATION = ("worker-operation", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e74")
    WORKER_OPERATION_FAILED = ("worker-operation-failed", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e75")
    ROLLING_RESTART = ("rolling-restart", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e76")
    ROLLING_RESTART_STOPPED = ("rolling-restart-stopped", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e77")
    CARD_OUT_OF_SERVICE = ("card-out-of-service", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e78")
    CARD_IN_SERVICE = ("card-in-service", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e79")
    WORKER_DRAINED = ("worker-drained", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e7a")
    WORKER_MEMORY_REMEDY = ("worker-memory-remedy", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eb8")
    WORKER_MEMORY_RELIEVED = ("worker-memory-relieved", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eb9")
    WORKER_MEMORY_TIGHT = ("worker-memory-tight", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7eba")
    WORKER_OUT_OF_MEMORY = ("worker-out-of-memory", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7ebb")
    THERMAL_GUARD_SILENT = ("thermal-guard-silent", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7ec0")
    THERMAL_GUARD_BACK = ("thermal-guard-back", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7ec1")

    def __init__(self, label: str, message_id: str) -> None:
        self.label = label
        self.message_id = message_id


CHANGES = (Event.CHANGE_GRANTED, Event.CHANGE_DENIED, Event.CHANGES_DENIED)

Follower = Callable[[Event, str, int, Mapping[str, str]], None]
_followers: list[Follower] = []


def follow(follower: Follower) -> None:
    """Have ``follower(event, message, level, fields)`` called for each event of this process.

    Whatever the level of the log: what is not written is told to followers all the same.
    """
    _followers.append(follower)


def unfollow(follower: Follower) -> None:
    """The end of that."""
    _followers.remove(follower)


def tell(event: Event, message: str, level: int = logging.INFO, **fields: object) -> None:
    """Write an event to the journal.

    :param fields: further fields of the contract in their own spelling (``GPU=0, WORKER=1``).
    """
    logger = always_log if event in CHANGES else log
    known = {name: str(value) for name, value in fields.items()}
    head = {"MESSAGE_ID": event.message_id, "GPUWARDEN_EVENT": event.label}
    logger.log(level, message, extra={"fields": {**head, **known}})
    for follower in _followers:
        follower(event, message, level, known)
