# SPDX-License-Identifier: Apache-2.0
"""What is known of the cards' heat: from their thermal guards, else the bus, else the snapshots.

A thermal guard is asked for root alone and knows everything. The bus leaves out a few things, the
snapshot file more: what is left out is named, so that nobody takes silence for a zero.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from gpuwarden import names
from gpuwarden.chart.series import Moment, in_order
from gpuwarden.cli import busctl
from gpuwarden.cli.busctl import NotRunningError
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.output import duration, unix_now
from gpuwarden.cli.service import get_status
from gpuwarden.cli.working import working
from gpuwarden.control.requests import (
    STATUS,
    HistoryAnswer,
    HistoryRequest,
    HistoryRow,
    Override,
    ThermalEvent,
    ThermalStatusAnswer,
)
from gpuwarden.control.snapshot import SnapshotError, boottime_nanoseconds, read_snapshot
from gpuwarden.control.socket import ControlError, Document, ask
from gpuwarden.control.states import PlanData, ThermalData
from gpuwarden.values import ThermalState

HISTORY_SECONDS = 3600
ASK_SECONDS = 3.0  # a thermal guard answers from memory; one that takes longer hangs
_PAGES_LIMIT = 100  # nine hold an hour; more is a guard gone wrong
MEMORY_THRESHOLDS = "HBM thresholds"
POLICY, OVERRIDE, EVENTS, HISTORY = "policy", "override", "events", "history"
MEMORY_HISTORY = "HBM history"
_LEFT_OUT_ON_THE_BUS = (POLICY, MEMORY_THRESHOLDS, OVERRIDE, EVENTS, MEMORY_HISTORY)
_LEFT_OUT_IN_SNAPSHOTS = (POLICY, MEMORY_THRESHOLDS, OVERRIDE, EVENTS, HISTORY)

Source = Literal["guard", "bus", "snapshot"]
Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True)
class CardHeat:
    """One card, as its source tells it.

    :ivar fresh: it is of this moment; else the last that was known.
    :ivar unknown: what this source left out.
    :ivar caveat: why it isn't a better source; empty where it is the best.
    :ivar moments: the last hour, oldest first.
    """

    data: ThermalData
    source: Source
    fresh: bool = True
    unknown: tuple[str, ...] = ()
    caveat: str = ""
    policy: str | None = None
    memory_alert_celsius: float | None = None
    memory_critical_celsius: float | None = None
    override: Override | None = None
    events: tuple[ThermalEvent, ...] = ()
    moments: tuple[Moment, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether there is nothing to see to."""
        return self.fresh and self.data.state is ThermalState.NORMAL


def look(gpu_index: int | None) -> list[CardHeat]:
    """This card, or all there are.

    :raises CommandError: no such card (BAD_USE); nothing knows a card, or of that one
        (UNREACHABLE).
    """
    look_up = _LookUp()
    return [look_up.card(index) for index in look_up.wanted(gpu_index)]


def known_cards() -> list[int]:
    """The indices of the node's cards, by the plan and by what thermal guards have published."""
    indices: set[int] = set()
    with suppress(SnapshotError):  # without a plan there may still be snapshots
        indices |= {card.index for card in read_snapshot(names.PLAN_FILE, PlanData).data.cards}
    folder = names.thermal_snapshot_file(0).parent
    for file in folder.glob("*.json"):
        if file.stem.isascii() and file.stem.isdigit():
            indices.add(int(file.stem))
    return sorted(indices)


def unknown_card(gpu_index: int, there_are: Iterable[int]) -> CommandError:
    """The error that names the cards there are."""
    listed = ", ".join(str(index) for index in there_are)
    return CommandError(f"there is no GPU {gpu_index}; there are: {listed}", Exit.BAD_USE)


class _LookUp:
    """One run of the command; the bus is asked at most once."""

    def wanted(self, gpu_index: int | None) -> list[int]:
        indices = known_cards() or sorted(self._bus) or []
        if not indices:
            reason = self._bus_error or f"{names.GUARD_UNIT} knows of none"
            message = f"no card is known: {names.PLAN_FILE} tells none, and {reason}"
            raise CommandError(message, Exit.UNREACHABLE)
        if gpu_index is None:
            return indices
        if gpu_index not in indices:
            raise unknown_card(gpu_index, indices)
        return [gpu_index]

    def card(self, index: int) -> CardHeat:
        try:
            return _from_guard(index)
        except ControlError as error:
            denied = error.kind == "AccessDenied" and os.geteuid() != 0
            why = "its thermal guard answers root alone" if denied else str(error)
        if index in self._bus:
            return self._from_bus(self._bus[index], why)
        if self._bus_error:
            why = self._bus_error if denied else f"{why}; {self._bus_error}"
        return _from_snapshot(index, why)

    @cached_property
    def _status(self) -> tuple[dict[int, ThermalData], str]:
        """The cards that the running service knows, or why it doesn't say."""
        try:
            return {card.index: card for card in get_status().gpus}, ""
        except CommandError as error:
            return {}, str(error)

    @property
    def _bus(self) -> dict[int, ThermalData]:
        return self._status[0]

    @property
    def _bus_error(self) -> str:
        return self._status[1]

    def _from_bus(self, data: ThermalData, why: str) -> CardHeat:
        unknown = _LEFT_OUT_ON_THE_BUS
        moments: tuple[Moment, ...] = ()
        try:
            moments = _bus_history(data.index)
        except CommandError as error:
            unknown, why = _LEFT_OUT_IN_SNAPSHOTS, f"{why}; no history: {error}"
        return CardHeat(data, "bus", unknown=unknown, caveat=why, moments=moments)


def _from_guard(index: int) -> CardHeat:
    """Raises ControlError where the guard doesn't give its state; a history can be missing."""
    path = names.thermal_control_socket(index)
    with working(f"waiting for {names.thermal_unit(index)}"):
        answer = _valid(ThermalStatusAnswer, ask(path, {"request": STATUS}, ASK_SECONDS))
    unknown: tuple[str, ...] = ()
    caveat = ""
    moments: tuple[Moment, ...] = ()
    try:
        moments = _guard_history(path)
    except ControlError as error:
        unknown, caveat = (HISTORY,), str(error)
    return CardHeat(
        answer.data,
        "guard",
        unknown=unknown,
        caveat=caveat,
        policy=answer.policy,
        memory_alert_celsius=answer.memory_alert_celsius,
        memory_critical_celsius=answer.memory_critical_celsius,
        override=answer.override,
        events=tuple(answer.events),
        moments=moments,
    )


def _guard_history(path: Path) -> tuple[Moment, ...]:
    """The last hour, page by page. Raises ControlError."""
    after = max(int((unix_now() - HISTORY_SECONDS) * 1e6), 0)
    rows: list[HistoryRow] = []
    for _ in range(_PAGES_LIMIT):
        request = HistoryRequest(after_unix_microseconds=after)
        page = _valid(HistoryAnswer, ask(path, request.model_dump(), ASK_SECONDS))
        rows += page.rows
        if not page.more:
            return tuple(in_order(_moment(row) for row in rows))
        if not page.rows or page.rows[-1].unix_microseconds <= after:
            break
        after = page.rows[-1].unix_microseconds
    raise ControlError("Failed", f"{path}: the history has no end")


def _valid(model: type[Answer], answer: Document) -> Answer:
    try:
        return model.model_validate(answer)
    except ValueError as error:
        message = f"the thermal guard is of another version ({str(error).splitlines()[0]})"
        raise ControlError("Failed", message) from error


def _moment(row: HistoryRow) -> Moment:
    return Moment(
        at_seconds=row.unix_microseconds / 1e6,
        state=row.state,
        celsius=row.celsius,
        celsius_lowest=row.celsius_lowest,
        celsius_highest=row.celsius_highest,
        memory_celsius=row.memory_celsius,
        watts=row.watts,
        watts_highest=row.watts_highest,
        limit_watts=row.limit_watts,
    )


def _bus_history(index: int) -> tuple[Moment, ...]:
    """GetHistory: (microseconds, celsius, watts, limit, state). Raises CommandError."""
    interface = f"{names.BUS_NAME}.Thermal"
    arguments = ("GetHistory", "u", str(HISTORY_SECONDS))
    answer = busctl.call(names.gpu_object(index), interface, *arguments)
    try:
        moments = [
            # The bus's limit is a whole number: 0 is unknown.
            Moment(at / 1e6, ThermalState(state), celsius, watts=watts, limit_watts=limit or None)
            for at, celsius, watts, limit, state in answer[0]
        ]
    except (ValueError, TypeError, LookupError) as error:
        message = f"the service's answer is not this command's version of a history ({error})"
        raise CommandError(message, Exit.WRONG) from error
    return tuple(in_order(moments))


def _from_snapshot(index: int, why: str) -> CardHeat:
    try:
        snapshot = read_snapshot(names.thermal_snapshot_file(index), ThermalData)
    except SnapshotError as error:
        message = f"nothing is known of GPU {index}: {why}; {error}"
        raise NotRunningError(message) from None
    now = boottime_nanoseconds()
    fresh = snapshot.is_fresh(now)
    if not fresh:
        age = snapshot.age_seconds(now)
        when = f"{duration(age)} ago" if age >= 0 else "before the last boot"
        unit = names.thermal_unit(index)
        why = f"{unit} last said something {when} (systemctl status {unit}); {why}"
    unknown = _LEFT_OUT_IN_SNAPSHOTS
    return CardHeat(snapshot.data, "snapshot", fresh=fresh, unknown=unknown, caveat=why)
