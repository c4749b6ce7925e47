# SPDX-License-Identifier: Apache-2.0
"""Which index a card has: fixed once a boot, kept by a card that is missing. Pure but for its file.

The record lies in the state directory, so that an index outlives a driver that hangs at boot.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from gpuwarden.control.snapshot import write_atomically
from gpuwarden.control.states import Card


class CardRecord(BaseModel):
    """The cards as last fixed.

    :ivar boot_id: the boot in which the order was fixed.
    :ivar simulated: whether they were the simulator's; those are forgotten on a real driver.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    boot_id: str
    simulated: bool
    cards: list[Card]


def read_record(path: Path) -> CardRecord | None:
    """The last record, None where there is none yet.

    :raises ValueError: there is one that can't be read; the text says why.
    """
    try:
        return CardRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {error.errors()[0]['msg']}") from error


def write_record(path: Path, record: CardRecord) -> None:
    """Replace the record if it changed. Raises OSError if it can't be written."""
    content = json.dumps(record.model_dump(), indent=2).encode() + b"\n"
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def fix_indices(found: Sequence[Card], known: Iterable[Card], *, same_boot: bool) -> list[Card]:
    """Every card with its index: those found now, and those known that are missing.

    A new boot with nothing missing takes NVML's order. Else known cards keep their index, a new
    card takes that of the missing one in whose slot it sits (a swap), or the next free one.

    :param found: present cards in NVML's order.
    :param known: the cards of the last record.
    """
    here = {card.uuid for card in found}
    missing = [card for card in known if card.uuid not in here]
    if not missing and not same_boot:
        return [card.model_copy(update={"index": index}) for index, card in enumerate(found)]
    index_of = {card.uuid: card.index for card in known}
    vacant = {card.pci_address: card.index for card in missing}
    taken = set(index_of.values())
    fixed: dict[int, Card] = {}
    for card in found:
        index = index_of.get(card.uuid, vacant.get(card.pci_address))
        if index is None:
            index = next(number for number in range(len(taken) + 1) if number not in taken)
        taken.add(index)
        fixed[index] = card.model_copy(update={"index": index, "present": True})
    for card in missing:
        fixed.setdefault(card.index, card.model_copy(update={"present": False}))
    return [fixed[index] for index in sorted(fixed)]
