# SPDX-License-Identifier: Apache-2.0
"""What the journal is told of a change from one state of the service to the next."""

import logging

from gpuwarden.control.states import GuardData, ThermalData
from gpuwarden.guard.breaker import Breaker
from gpuwarden.systemd.events import Event, tell
from gpuwarden.values import WorkerState


def tell_changes(old: GuardData | None, new: GuardData) -> None:
    """The service's own state, and each worker's; busy or not is no news."""
    if old is None or old.state != new.state or old.reasons != new.reasons:
        tell(
            Event.SERVICE_STATE,
            f"{new.state}" + (": " + "; ".join(new.reasons) if new.reasons else ""),
            logging.WARNING if new.reasons else logging.INFO,
            STATE_OLD=old.state if old else "",
            STATE_NEW=new.state,
            REASON="; ".join(new.reasons),
        )
    _tell_outdated(old, new)
    before = {worker.number: worker.state for worker in old.workers} if old else {}
    for worker in new.workers:
        former = before.get(worker.number)
        if former != worker.state and WorkerState.BUSY not in (former, worker.state):
            tell(
                Event.WORKER_STATE,
                f"worker {worker.number}: {former or 'unknown'} -> {worker.state}"
                + (f" ({worker.reason})" if worker.reason else ""),
                WORKER=worker.number,
                GPU=worker.gpu,
                GPU_UUID=worker.gpu_uuid,
                STATE_OLD=former or "",
                STATE_NEW=worker.state,
                REASON=worker.reason,
            )


def _tell_outdated(old: GuardData | None, new: GuardData) -> None:
    known = {worker.number for worker in old.workers if worker.outdated} if old else set()
    for worker in new.workers:
        if worker.outdated and worker.number not in known:
            tell(
                Event.WORKER_OUTDATED,
                f"worker {worker.number} runs by former settings until it is restarted: "
                f"systemctl restart {worker.unit}",
                WORKER=worker.number,
                GPU=worker.gpu,
                GPU_UUID=worker.gpu_uuid,
            )


def tell_stopped_for_heat(card: ThermalData, numbers: list[int]) -> None:
    """These workers are being stopped because their card is too hot."""
    tell(
        Event.WORKERS_STOPPED_FOR_HEAT,
        f"GPU {card.index} is too hot, {_workers(numbers)} stopped: {card.reason}",
        logging.ERROR,
        **_fields(card),
    )


def tell_started_after_heat(card: ThermalData, numbers: list[int]) -> None:
    """These workers are started again."""
    tell(
        Event.WORKERS_STARTED_AFTER_HEAT,
        f"GPU {card.index} has cooled, {_workers(numbers)} started again",
        logging.INFO,
        **_fields(card),
    )


def tell_card_out_of_service(card: ThermalData, numbers: list[int], breaker: Breaker) -> None:
    """These workers are being stopped because their card needs more than a restart."""
    tell(
        Event.CARD_OUT_OF_SERVICE,
        f"GPU {card.index} needs a {breaker.remedy} ({breaker.why}): it is out of service, "
        f"{_workers(numbers)} stopped; what to do: {breaker.what_to_do(card.index)}",
        logging.ERROR,
        **(_fields(card) | {"REASON": breaker.why}),
    )


def tell_card_in_service(card: ThermalData, numbers: list[int]) -> None:
    """These workers are started again."""
    tell(
        Event.CARD_IN_SERVICE,
        f"GPU {card.index} is back in service, {_workers(numbers)} started again",
        logging.INFO,
        **_fields(card),
    )


def _workers(numbers: list[int]) -> str:
    if not numbers:
        return "no worker is"
    listed = ", ".join(map(str, numbers))
    return f"worker {listed} is" if len(numbers) == 1 else f"workers {listed} are"


def _fields(card: ThermalData) -> dict[str, object]:
    fields: dict[str, object] = {
        "GPU": card.index,
        "GPU_UUID": card.uuid,
        "STATE_NEW": card.state,
        "REASON": card.reason,
    }
    if card.temperature_celsius is not None:
        fields["TEMPERATURE_CELSIUS"] = card.temperature_celsius
    return fields
