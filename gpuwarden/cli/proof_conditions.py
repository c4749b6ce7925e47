# SPDX-License-Identifier: Apache-2.0
"""When a proof may write to a card: never against the card's thermal guard, and only as root."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.output import unix_now
from gpuwarden.cli.thermal_sources import ASK_SECONDS, unknown_card
from gpuwarden.control.requests import STATUS, ThermalStatusAnswer
from gpuwarden.control.snapshot import (
    SnapshotError,
    boot_id,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.control.socket import ControlError, ask
from gpuwarden.control.states import Card, PlanData, ThermalData
from gpuwarden.systemd.command import SystemctlError, unit_property
from gpuwarden.thermal.privilege import lacks_administration
from gpuwarden.values import ThermalState

NEEDED_SECONDS = 60.0  # a proof takes a few; a driver that is slow to answer, many
NEEDED_FOR_A_STEP_SECONDS = 10.0
RELEASE_SECONDS = 120  # what is advised: the proof, and the time to start it
_DOWN = frozenset({"inactive", "failed"})
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def planned_card(gpu_index: int) -> Card:
    """The card with this index.

    :raises CommandError: no plan (UNREACHABLE), no such card (BAD_USE), lost (WRONG).
    """
    try:
        plan = read_snapshot(names.PLAN_FILE, PlanData)
    except SnapshotError as error:
        message = f"which card is GPU {gpu_index}? {error} (systemctl start {names.NUMA_UNIT})"
        raise CommandError(message, Exit.UNREACHABLE) from error
    if plan.boot_id != boot_id():
        message = f"{names.PLAN_FILE} is of another boot (systemctl start {names.NUMA_UNIT})"
        raise CommandError(message, Exit.UNREACHABLE)
    for card in plan.data.cards:
        if card.index == gpu_index and card.present:
            return card
        if card.index == gpu_index:
            raise CommandError(
                f"GPU {gpu_index} ({card.uuid}) is lost (gpuwarden logs --gpu {gpu_index})",
                Exit.WRONG,
            )
    raise unknown_card(gpu_index, [card.index for card in plan.data.cards])


def require_administration() -> None:
    """Raises CommandError (WRONG) unless this process may set a card's limits."""
    if os.geteuid() != 0 or lacks_administration():
        message = "settings of a card take root with CAP_SYS_ADMIN (sudo gpuwarden doctor ...)"
        raise CommandError(message, Exit.WRONG)


def hindrance(gpu_index: int, needed_seconds: float = NEEDED_FOR_A_STEP_SECONDS) -> str:
    """Why the card's thermal guard forbids a write now; empty where there is none or it let go.

    A guard would take our write for the administrator's, and keep to it.
    """
    unit = names.thermal_unit(gpu_index)
    try:
        state = unit_property(unit, "ActiveState").strip()
    except SystemctlError as error:
        return f"whether {unit} guards the card is unknown: {error}"
    if state in _DOWN:
        return ""
    ways = (
        f"stop the card's workers and let it go with: "
        f"gpuwarden thermal release {gpu_index} {RELEASE_SECONDS}"
    )
    try:
        snapshot = read_snapshot(names.thermal_snapshot_file(gpu_index), ThermalData)
    except SnapshotError as error:
        return f"{unit} is {state}, and has not released the card ({error}); {ways}"
    if not snapshot.is_fresh(boottime_nanoseconds()):
        return f"{unit} is {state}, but has not said lately how the card is; {ways}"
    if snapshot.data.state is not ThermalState.RELEASED:
        return f"{unit} guards GPU {gpu_index} ({snapshot.data.state}); {ways}"
    return _too_short(gpu_index, needed_seconds)


def _too_short(gpu_index: int, needed_seconds: float) -> str:
    """Why a release that holds is not enough; empty where it is."""
    path = names.thermal_control_socket(gpu_index)
    try:
        answer = ask(path, {"request": STATUS}, ASK_SECONDS)
        override = ThermalStatusAnswer.model_validate(answer).override
    except (ControlError, ValueError) as error:
        return f"GPU {gpu_index} is released, but for how long is unknown: {error}"
    if override is None or override.state != "released":
        return f"GPU {gpu_index} is being taken back by its guard"
    left = override.until_unix_microseconds / 1e6 - unix_now()
    if left >= needed_seconds:
        return ""
    return (
        f"the release of GPU {gpu_index} ends in {max(left, 0):.0f} s, and "
        f"{needed_seconds:.0f} s are needed: gpuwarden thermal release {gpu_index} "
        f"{RELEASE_SECONDS}"
    )


class Interruption:
    """Signals that want an end, kept until there is a moment for it: nothing is left half done."""

    def __init__(self) -> None:
        self._name = ""

    def __call__(self) -> str:
        """What wants the end; empty while nothing does."""
        return self._name

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, Ctrl-C, SIGTERM and a lost terminal are noted and end nothing."""
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._name = f"interrupted by {signal.Signals(number).name}"
