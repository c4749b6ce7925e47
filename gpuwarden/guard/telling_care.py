# SPDX-License-Identifier: Apache-2.0
"""What the journal is told of the workers' health, and of other processes on the cards."""

import logging

from gpuwarden.control.states import Holder, WorkerStatus
from gpuwarden.guard.findings import Ailment
from gpuwarden.systemd.events import Event, tell
from gpuwarden.values import WorkerState


def tell_ailment(worker: WorkerStatus, ill: Ailment) -> None:
    """A worker has become a ghost, or stuck."""
    event = Event.WORKER_GHOST if ill.state is WorkerState.GHOST else Event.WORKER_STUCK
    tell(
        event,
        f"worker {worker.number} is {ill.state}: {ill.reason}",
        logging.ERROR,
        STATE_NEW=ill.state,
        **_of(worker, ill.reason),
    )


def tell_card_lost(worker: WorkerStatus, reason: str) -> None:
    """All that a worker is asked fails, and it says itself that its card is gone for it."""
    tell(
        Event.WORKER_CARD_LOST,
        f"worker {worker.number}: its requests fail, and its card is gone for it: {reason}",
        logging.ERROR,
        **_of(worker, reason),
    )


def tell_recycled(worker: WorkerStatus, reason: str) -> None:
    """A worker is restarted while nobody needs it."""
    tell(
        Event.WORKER_RECYCLED,
        f"worker {worker.number} is idle and restarted: {reason}",
        logging.WARNING,
        **_of(worker, reason),
    )


def tell_needs_memory(worker: WorkerStatus, reason: str) -> None:
    """A worker is over its soft limit from its start: a restart would not help."""
    tell(
        Event.WORKER_NEEDS_MEMORY,
        f"worker {worker.number}: {reason}, and did so from its start: raise memory_max_bytes in "
        "[workers]",
        logging.WARNING,
        **_of(worker, reason),
    )


def tell_not_listed(worker: WorkerStatus, outcome: str, detail: str) -> None:
    """A worker may have lost its card, and its canary did not say so."""
    told = f"{outcome}, {detail}" if detail else outcome
    tell(
        Event.WORKER_NOT_LISTED,
        f"worker {worker.number} is not in its card's list, or all its requests fail; asked for "
        f"its card, it said: {told}; it is left alone",
        logging.INFO,
        **_of(worker, told),
    )


def _of(worker: WorkerStatus, reason: str) -> dict[str, object]:
    return {
        "WORKER": worker.number,
        "GPU": worker.gpu,
        "GPU_UUID": worker.gpu_uuid,
        "REASON": reason,
    }


def tell_orphan(gpu: int, holder: Holder) -> None:
    """Somebody holds a card's memory who is none of a running worker."""
    tell(
        Event.ORPHAN_FOUND,
        f"GPU {gpu}: {_named(holder)} holds {_mebibytes(holder.vram_bytes)} "
        f"({holder.holder_class})",
        logging.WARNING if holder.holder_class == "ours-dead" else logging.INFO,
        **_of_holder(gpu, holder),
    )


def tell_reaped(gpu: int, holder: Holder, freed_bytes: int | None) -> None:
    """It was ended."""
    measured = "freed memory could not be measured"
    if freed_bytes is not None:
        measured = f"freed {_mebibytes(freed_bytes)}"
    if freed_bytes is not None and holder.vram_bytes and freed_bytes < holder.vram_bytes:
        measured += f" of {_mebibytes(holder.vram_bytes)}"
    tell(
        Event.ORPHAN_REAPED,
        f"GPU {gpu}: {_named(holder)} was ended: {measured}",
        logging.WARNING,
        **_of_holder(gpu, holder),
    )


def tell_survived(gpu: int, holder: Holder, why: str) -> None:
    """It was not ended."""
    tell(
        Event.ORPHAN_NOT_REAPED,
        f"GPU {gpu}: {_named(holder)} could not be ended: {why}",
        logging.ERROR,
        REASON=why,
        **_of_holder(gpu, holder),
    )


def _named(holder: Holder) -> str:
    left = f", left by worker {holder.worker}" if holder.worker is not None else ""
    return f"PID {holder.pid} ({holder.command}{left})"


def _mebibytes(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size >> 20} MiB"


def _of_holder(gpu: int, holder: Holder) -> dict[str, object]:
    # Not OBJECT_PID: journald would add the command line, arguments included.
    worker = {} if holder.worker is None else {"WORKER": holder.worker}
    return {"GPU": gpu, "ORPHAN_PID": holder.pid, **worker}
