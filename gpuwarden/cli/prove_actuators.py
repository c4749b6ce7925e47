# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden doctor --prove-actuators GPU``: tries on a card what its thermal guard sets."""

import argparse
import sys
from datetime import datetime
from pathlib import Path

from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.output import warn
from gpuwarden.cli.proof import Originals, Proof, StoppedError
from gpuwarden.cli.proof_conditions import (
    NEEDED_SECONDS,
    Interruption,
    hindrance,
    planned_card,
    require_administration,
)
from gpuwarden.cli.proof_protocol import Protocol
from gpuwarden.cli.working import working
from gpuwarden.config import ConfigurationError, effective_configuration
from gpuwarden.control.snapshot import boot_id
from gpuwarden.control.states import Card
from gpuwarden.files import write_whole
from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NvmlError
from gpuwarden.nvml.library import Session, choose_library
from gpuwarden.thermal.originals import Here
from gpuwarden.thermal.originals_store import OriginalsStore, driver_load

_WHAT = (
    "This sets GPU {gpu}'s power limit to 5 % less than it is, and back, then does the same with "
    "its SM clock. It takes some seconds."
)
_LOCK = (
    "A lock of the SM clock that you have set yourself (nvidia-smi -lgc) can't be seen and would "
    "be lost; sm_clock_baseline_mhz in [thermal] would keep it. Without that, the SM clock can be "
    "left out."
)


def run(arguments: argparse.Namespace) -> int:
    """Ask, prove, print the protocol: 0 when the card took everything and has its own back."""
    gpu: int = arguments.prove_actuators
    card = planned_card(gpu)
    require_administration()
    _require(hindrance(gpu, NEEDED_SECONDS))
    baseline_mhz = _baseline_mhz(card)
    with_clock = _agreed(gpu, baseline_mhz, yes=arguments.yes)
    _require(hindrance(gpu, NEEDED_SECONDS))  # an answer can take a while
    protocol = _proven(card, baseline_mhz, with_clock=with_clock)
    text = protocol.as_json() if arguments.json else "\n".join(protocol.lines())
    # The file first: the terminal may be gone.
    problem = _leave(arguments.output, text)
    print(text)
    if problem:
        raise CommandError(problem, Exit.WRONG)
    return Exit.GOOD if protocol.is_good else Exit.WRONG


def _proven(card: Card, baseline_mhz: int, *, with_clock: bool) -> Protocol:
    """Raises CommandError where the card can't even be opened."""
    library = choose_library()
    if library.note:
        warn(library.note)
    try:
        with Session(library) as session:
            return _proven_in(session, card, baseline_mhz, with_clock=with_clock)
    except (CardLostError, DriverMissingError) as error:
        raise CommandError(str(error), Exit.UNREACHABLE) from error
    except NvmlError as error:
        raise CommandError(str(error), Exit.WRONG) from error


def _proven_in(session: Session, card: Card, baseline_mhz: int, *, with_clock: bool) -> Protocol:
    whole = session.open_whole_card(card.uuid, card.pci_address)
    limits = whole.reader.limits()
    originals = _originals(card)
    protocol = Protocol(
        date=datetime.now().astimezone(),
        gpu=card.index,
        name=card.name,
        uuid=card.uuid,
        pci_address=card.pci_address,
        driver_version=session.driver_version(),
        simulated=session.simulated,
        power_minimum_watts=limits.power_minimum_watts,
        power_maximum_watts=limits.power_maximum_watts,
    )
    interrupted = Interruption()
    proof = Proof(whole.control, originals, lambda: hindrance(card.index), interrupted)
    with interrupted.kept(), working(f"setting and reading back GPU {card.index}"):
        stopped = _carry_out(proof, limits.power_minimum_watts, baseline_mhz, with_clock)
    stopped = stopped or interrupted()
    found = {"steps": proof.steps, "restored": proof.restored, "stopped": stopped}
    return protocol.model_copy(update=found)


def _originals(card: Card) -> Originals:
    """The card's record; raises CommandError where it tells of settings that a guard has left."""
    originals = Originals(OriginalsStore(card.uuid), Here(card.uuid, boot_id(), driver_load()))
    for note in originals.notes:
        warn(note)
    if originals.left_behind:
        _require(_left_behind(card.index))
    return originals


def _carry_out(
    proof: Proof, minimum_watts: float | None, baseline_mhz: int, with_clock: bool
) -> str:
    """Why it stopped before the end; empty if it didn't."""
    try:
        original = proof.power_limit(minimum_watts)
        if with_clock and proof.restored:
            proof.sm_clock_lock(baseline_mhz, original)
        elif with_clock:
            return "the power limit is not as it was"
    except StoppedError as error:
        return str(error)
    return ""


def _agreed(gpu: int, baseline_mhz: int, *, yes: bool) -> bool:
    """Whether the SM clock is proven too; raises CommandError where the proof isn't wanted."""
    if yes:
        return True
    if not sys.stdin.isatty():
        message = "it changes a card's settings, so it asks first: on a terminal, or give --yes"
        raise CommandError(message, Exit.BAD_USE)
    if not _asks(f"{_WHAT.format(gpu=gpu)} Go on?"):
        raise CommandError("not wanted: nothing was changed", Exit.WRONG)
    return bool(baseline_mhz) or _asks(f"{_LOCK} Try the SM clock, too?")


def _asks(question: str) -> bool:
    """On standard error: the output may go to a file."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _baseline_mhz(card: Card) -> int:
    try:
        return effective_configuration().thermal.of_card(card.uuid).sm_clock_baseline_mhz
    except ConfigurationError as error:
        message = f"the configuration is wrong (gpuwarden config check): {error}"
        raise CommandError(message, Exit.WRONG) from error


def _left_behind(gpu: int) -> str:
    return (
        f"a thermal guard that did not end cleanly has left settings of its own on GPU {gpu}: "
        f"systemctl start medgemma-thermal@{gpu} goes on from them and puts the originals back"
    )


def _require(problem: str) -> None:
    if problem:
        raise CommandError(f"nothing was changed: {problem}", Exit.WRONG)


def _leave(file: Path | None, text: str) -> str:
    """What is wrong with the file; empty where it is written or none is wanted."""
    if file is None:
        return ""
    try:
        write_whole(file, f"{text}\n".encode())
    except OSError as error:
        return f"{file} can't be written: {error.strerror}"
    return ""
