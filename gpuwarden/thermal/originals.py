# SPDX-License-Identifier: Apache-2.0
"""What the administrator had set on a card, and what of the card's settings is ours. Pure.

A record is on disk before the card has the value that it names, so a guard that is killed at any
moment leaves a card whose settings the next start can tell apart: *ours* (the original comes from
the record), or *not ours* (somebody else set it, so it is the original now, and the ceiling).
Ours is never taken for the original, and nothing is ever raised above the value that the
administrator has set last.

The rules (:func:`judge`):

- no record: what the card has is the original;
- record of this boot and this load of the driver, and the card has a value of ours: the original is
  the record's, and the guard goes on from there;
- the same, but the card has another value: that one is the original, whoever set it;
- record of another boot or load: limits and locks have died with it, what the card has is the
  original, and the record is archived;
- a damaged record and no good copy: what the card has is the ceiling and is put back, because no
  higher value could be defended. It may be a value of ours; that is said, with what to do. It takes
  two damaged copies within one boot: one copy lies in /run, which is written first, needs no disk
  and dies with the boot, exactly as the card's settings do.

No card tells which clock lock it has: one that a record of this boot and load names is ours.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCHEMA = 1
# How far from the value that was asked for a board may round. Only a limit of which it isn't known
# what the board made of it is compared so loosely: the few milliseconds around a write.
ROUNDING_SHARE = 0.01
LEAST_ROUNDING_MILLIWATTS = 2000


class DamagedRecordError(Exception):
    """Not a whole record of this card; the text says what is wrong."""


class Record(BaseModel):
    """One card's originals.

    :param driver_load: which load of the driver's module; empty where that can't be seen.
    :param sequence: grows with each save: of two copies the higher one holds.
    :param original_milliwatts: the administrator's power limit; None on a card without one.
    :param ours_milliwatts: the limit that we have set and read back; None if none is.
    :param next_milliwatts: the limit that we are about to set, or have set and not read back.
    :param sm_lock_mhz: the highest SM clock that we allow or are about to; None: no lock of ours.
    :param memory_lock_mhz: the same for the memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    uuid: str
    boot_id: str
    driver_load: str = ""
    sequence: int = Field(default=0, ge=0)
    original_milliwatts: int | None = Field(default=None, gt=0)
    ours_milliwatts: int | None = Field(default=None, gt=0)
    next_milliwatts: int | None = Field(default=None, gt=0)
    sm_lock_mhz: int | None = Field(default=None, gt=0)
    memory_lock_mhz: int | None = Field(default=None, gt=0)

    def names(self, live_milliwatts: int) -> bool:
        """Whether a limit that a card has is one of ours."""
        if live_milliwatts == self.ours_milliwatts:
            return True
        following = self.next_milliwatts
        return following is not None and is_rounded(following, live_milliwatts)

    @property
    def by_hand(self) -> tuple[str, ...]:
        """The commands that put back what the administrator had."""
        commands: list[str] = []
        if self.original_milliwatts is not None:
            watts = self.original_milliwatts / 1000
            commands.append(f"nvidia-smi -i {self.uuid} -pl {watts:g}")
        if self.sm_lock_mhz is not None:
            commands.append(f"nvidia-smi -i {self.uuid} -rgc")
        if self.memory_lock_mhz is not None:
            commands.append(f"nvidia-smi -i {self.uuid} -rmc")
        return tuple(commands)

    @property
    def holds_nothing_of_ours(self) -> bool:
        """Whether the card is as the administrator had it."""
        return (
            self.ours_milliwatts is None
            and self.next_milliwatts is None
            and self.sm_lock_mhz is None
            and self.memory_lock_mhz is None
        )


def is_rounded(asked_milliwatts: int, live_milliwatts: int) -> bool:
    """Whether a board may have made the one of the other."""
    most = max(LEAST_ROUNDING_MILLIWATTS, round(asked_milliwatts * ROUNDING_SHARE))
    return abs(asked_milliwatts - live_milliwatts) <= most


def encode(record: Record) -> bytes:
    """A record as it is stored, with a checksum over the rest of it."""
    body = {"schema": SCHEMA, **record.model_dump()}
    return (json.dumps({**body, "checksum": _checksum(body)}, indent=2) + "\n").encode()


def decode(content: bytes, uuid: str) -> Record:
    """The stored record of card ``uuid``.

    :raises DamagedRecordError: torn, of another card, or of another version of this program.
    """
    try:
        document = json.loads(content)
    except ValueError:
        raise DamagedRecordError("it is not JSON (torn?)") from None
    if not isinstance(document, dict):
        raise DamagedRecordError("it is not a record")
    if document.get("schema") != SCHEMA:
        raise DamagedRecordError(f"its schema is {document.get('schema')!r}, not {SCHEMA}")
    if document.pop("checksum", None) != _checksum(document):
        raise DamagedRecordError("its checksum does not fit its content")
    del document["schema"]
    try:
        record = Record.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise DamagedRecordError(f"{where}: {error.errors()[0]['msg']}") from None
    if record.uuid != uuid:
        raise DamagedRecordError(f"it is of another card ({record.uuid})")
    return record


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to take a card's settings for at a start.

    :ivar record: the record to go on with.
    :ivar continues: the card has a limit of ours, the original is from the record.
    :ivar is_outdated: the old record is of another boot or load: archive it.
    :ivar replaced_milliwatts: the former original, where somebody has set another limit since.
    :ivar is_doubtful: the original is unknown; the card's value stands in for it.
    """

    record: Record
    continues: bool = False
    is_outdated: bool = False
    replaced_milliwatts: int | None = None
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Here:
    """Which card this is, and in which life of the node and the driver."""

    uuid: str
    boot_id: str
    driver_load: str = ""

    def is_life_of(self, record: Record) -> bool:
        """Whether what a record tells of can still be on the card.

        A load that can't be seen, then or now, counts as the same one: else a value of ours could
        be taken for the original.
        """
        if record.boot_id != self.boot_id:
            return False
        loads = (record.driver_load, self.driver_load)
        return "" in loads or loads[0] == loads[1]


def judge(record: Record | None, live_milliwatts: int | None, here: Here, damaged: bool) -> Verdict:
    """What the card's settings are; the rules stand above.

    :param record: the best of the stored copies, None if there is none.
    :param live_milliwatts: the card's limit now, None where it has none or it can't be read.
    :param damaged: a copy was there that can't be believed.
    """
    fresh = Record(
        uuid=here.uuid,
        boot_id=here.boot_id,
        driver_load=here.driver_load,
        sequence=record.sequence if record is not None else 0,
        original_milliwatts=live_milliwatts,
    )
    if record is None:
        return Verdict(fresh, is_doubtful=damaged)
    if not here.is_life_of(record):
        return Verdict(fresh, is_outdated=True)
    kept = record.model_copy(update={"driver_load": here.driver_load or record.driver_load})
    if live_milliwatts is None:
        return Verdict(kept)
    original = record.original_milliwatts
    is_ours = record.names(live_milliwatts) and live_milliwatts != original
    if is_ours and original is not None:
        update = {"ours_milliwatts": live_milliwatts, "next_milliwatts": None}
        return Verdict(kept.model_copy(update=update), continues=True)
    update = {
        "original_milliwatts": live_milliwatts,
        "ours_milliwatts": None,
        "next_milliwatts": None,
    }
    replaced = original if original != live_milliwatts else None
    return Verdict(kept.model_copy(update=update), replaced_milliwatts=replaced)


def _checksum(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
