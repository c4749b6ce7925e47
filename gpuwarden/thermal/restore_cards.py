# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden-daemon restore-cards``: each card as its administrator had it, when the package goes.

To be run after the thermal guards have ended. Nobody will put anything back later, so a card that
is still hot gets its own settings back, too: from here on its driver protects it alone.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from gpuwarden.config import Configuration, ConfigurationError
from gpuwarden.control.snapshot import SnapshotError, boot_id, read_snapshot
from gpuwarden.control.states import Card, PlanData
from gpuwarden.nvml.child import ChildError, in_child
from gpuwarden.nvml.errors import DriverMissingError, NvmlError
from gpuwarden.nvml.library import DRIVER_VERSION_FILE, Library, Session, choose_library
from gpuwarden.systemd.events import Event
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.thermal.actuators import Actuators
from gpuwarden.thermal.ledger import Ledger, Teller, watts_text
from gpuwarden.thermal.originals import Here, Record
from gpuwarden.thermal.originals_store import OriginalsStore, driver_load
from gpuwarden.thermal.rules import options_for
from gpuwarden.thermal.service import Places

log = logging.getLogger(__name__)

CARD_SECONDS = 10.0  # as for the placement: a healthy driver answers within one


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one card.

    :ivar text: for the operator; empty where nothing of ours was on the card.
    """

    restored: bool
    text: str = ""


def main(argv: list[str], places: Places | None = None) -> int:
    """Restore every card of the plan and print a line for each that needed it.

    Exit status 0: nothing of ours is left on any; 1: something is, and the lines say what.
    """
    set_up_logging("error")
    if argv:
        log.error("restore-cards takes no arguments, found %s", " ".join(argv))
        return 2
    places = places or Places()
    library = choose_library()
    outcomes = [restore(card, library, places) for card in _planned(places.plan_file)]
    for outcome in outcomes:
        if outcome.text:
            print(outcome.text, flush=True)
    return 0 if all(outcome.restored for outcome in outcomes) else 1


def restore(card: Card, library: Library, places: Places) -> Outcome:
    """Put back what a record says, read it back; no record, nothing to do."""
    here = Here(card.uuid, boot_id(), driver_load())
    found = OriginalsStore(card.uuid, places.originals).load(here)
    record = found.record
    if record is None and not found.notes:
        return Outcome(True)
    if record is not None and (record.holds_nothing_of_ours or not here.is_life_of(record)):
        return Outcome(True)
    try:
        answer = in_child(lambda: asdict(_restore(card, library, places)), CARD_SECONDS)
    except ChildError as error:
        return _left(card.index, record, None, str(error))
    outcome = Outcome(**answer)
    if record is None:  # nobody knows what the original was
        why = f"{'; '.join(found.notes)}; {outcome.text}"
        return Outcome(False, f"GPU {card.index}: its original limit is not known: {why}")
    return outcome


def _restore(card: Card, library: Library, places: Places) -> Outcome:
    """In the child: raises NvmlError."""
    try:
        session = Session(library)
    except DriverMissingError:
        if DRIVER_VERSION_FILE.exists():
            raise  # the library is missing, but the settings are there
        text = "no driver is loaded, and what was set went with it"
        return Outcome(True, f"GPU {card.index}: {text}")
    with session:
        opened = session.open_whole_card(card.uuid, card.pci_address)
        teller = Teller(card.index)
        store = OriginalsStore(card.uuid, places.originals)
        ledger = Ledger(store, teller, lambda: Here(card.uuid, boot_id(), driver_load()))
        options = options_for(_configuration(places), card.uuid)
        limits = opened.reader.limits()
        actuators = Actuators(opened.control, limits, ledger, teller, options)
        is_theirs = any(each.event is Event.THERMAL_OUTSIDE_CHANGE for each in teller.fetch())
        is_back = actuators.restore()
        try:
            live = opened.control.power_limit_milliwatts()
        except NvmlError:
            live = None
    if not is_back:
        return _left(card.index, ledger.record, live, actuators.refusals())
    if live is None:
        return Outcome(True, f"GPU {card.index}: its clocks are restored")
    done = "set from outside since, stays" if is_theirs else "restored"
    return Outcome(True, f"GPU {card.index}: {watts_text(live)} W {done}")


def _left(index: int, record: Record | None, live: int | None, why: str) -> Outcome:
    """What a card could not be freed of, and how it can be by hand."""
    if record is None:
        return Outcome(False, f"GPU {index}: its original limit is not known: {why}")
    parts: list[str] = []
    has = live or record.ours_milliwatts or record.next_milliwatts
    original = record.original_milliwatts
    if has is not None and original is not None and has != original:
        parts.append(f"{watts_text(has)} W left, was {watts_text(original)} W")
    if record.sm_lock_mhz is not None:
        parts.append(f"SM clock left at most {record.sm_lock_mhz} MHz")
    if record.memory_lock_mhz is not None:
        parts.append(f"memory clock left at most {record.memory_lock_mhz} MHz")
    what, commands = ", ".join(parts) or "something left", " and ".join(record.by_hand)
    verb = "puts" if len(record.by_hand) == 1 else "put"
    return Outcome(False, f"GPU {index}: {what}: {why}; {commands} {verb} it back")


def _planned(plan_file: Path) -> list[Card]:
    """The cards that thermal guards of this boot may have set: without a plan there was none."""
    try:
        snapshot = read_snapshot(plan_file, PlanData)
    except SnapshotError:
        return []
    return snapshot.data.cards if snapshot.boot_id == boot_id() else []


def _configuration(places: Places) -> Configuration:
    try:
        return places.load()
    except ConfigurationError:
        return Configuration()  # as the thermal guard does it
