# SPDX-License-Identifier: Apache-2.0
"""What the guard's driver thread has to tell; the loop writes it to the journal. Pure."""

import logging
from dataclasses import dataclass, field

from gpuwarden.systemd.events import Event


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to a card, as :func:`gpuwarden.systemd.events.tell` takes it.

    :ivar level: of the logging module.
    :ivar fields: the contract's journal fields; GPU and GPU_UUID are always in it.
    """

    event: Event
    message: str
    level: int = logging.INFO
    fields: dict[str, str] = field(default_factory=dict)
