"""Journal events: one MESSAGE_ID each, for a catalogue to explain and for tooling to find."""

import logging
from enum import Enum

log = logging.getLogger("gpuwarden")


class Event(Enum):
    """An event's name in the field GPUWARDEN_EVENT and its MESSAGE_ID."""

    SERVICE_STATE = ("service-state", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e01")
    WORKER_STATE = ("worker-state", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e02")
    WORKER_RETRY = ("worker-retry", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e03")
    CONFIGURATION_REFUSED = ("configuration-refused", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e04")
    CONFIGURATION_ACCEPTED = ("configuration-accepted", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e05")
    PORT_TAKEN = ("port-taken", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e06")
    CARDS = ("cards", "2f1c5ad1c0e04a0f9d1b6d7c0a5b7e07")

    def __init__(self, label: str, message_id: str) -> None:
        self.label = label
        self.message_id = message_id


def tell(event: Event, message: str, level: int = logging.INFO, **fields: object) -> None:
    """Write an event to the journal.

    :param fields: further fields of the contract in their own spelling (``GPU=0, WORKER=1``).
    """
    known = {name: str(value) for name, value in fields.items()}
    head = {"MESSAGE_ID": event.message_id, "GPUWARDEN_EVENT": event.label}
    log.log(level, message, extra={"fields": {**head, **known}})
