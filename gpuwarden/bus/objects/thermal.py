# SPDX-License-Identifier: Apache-2.0
"""org.gpuwarden1.Thermal: how one card is kept cool."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gpuwarden.bus.interface import Argument, Emits, Handler, Interface, Method, Property, Signal
from gpuwarden.control.requests import HistoryRow
from gpuwarden.control.states import ThermalData
from gpuwarden.names import BUS_NAME, THERMAL_OVERRIDE_ACTION


class ThermalCommands(Protocol):
    """What answers the methods below, for the card of an index. Each raises BusError."""

    async def override(self, gpu_index: int, state: str, seconds: int) -> None:
        """Cool the card as in ``state`` (alert, critical) at least, for so long."""

    async def clear_override(self, gpu_index: int) -> None:
        """End an override or a release now."""

    async def history(self, gpu_index: int, seconds: int) -> list[HistoryRow]:
        """The last ``seconds`` of the card, oldest first."""

    async def release(self, gpu_index: int, seconds: int) -> None:
        """Let go of the card for so long."""


def thermal_handlers(commands: ThermalCommands, gpu_index: int) -> Mapping[str, Handler]:
    """What answers each method of the interface, for one card."""

    async def override(state: str, seconds: int) -> Sequence[object]:
        await commands.override(gpu_index, state, seconds)
        return ()

    async def clear_override() -> Sequence[object]:
        await commands.clear_override(gpu_index)
        return ()

    async def get_history(seconds: int) -> Sequence[object]:
        return ([_row(row) for row in await commands.history(gpu_index, seconds)],)

    async def release(seconds: int) -> Sequence[object]:
        await commands.release(gpu_index, seconds)
        return ()

    return {
        "Override": override,
        "ClearOverride": clear_override,
        "GetHistory": get_history,
        "Release": release,
    }


def _row(row: HistoryRow) -> tuple[object, ...]:
    # The contract's tuple has the limit as a count: whole watts, 0 where it is unknown.
    limit = None if row.limit_watts is None else round(row.limit_watts)
    return (row.unix_microseconds, row.celsius, row.watts, limit, row.state)


THERMAL: Interface[ThermalData] = Interface(
    f"{BUS_NAME}.Thermal",
    "How one card is kept cool.",
    methods=(
        Method(
            "Override",
            "Cool it as in the state alert or critical at least, whatever its temperature, for 1 "
            "to 86400 seconds. Outlives caller and guard; ends by itself or with ClearOverride. A "
            "later one replaces it. It can never be made hotter.",
            inputs=(Argument("state", "s"), Argument("seconds", "u")),
            action=THERMAL_OVERRIDE_ACTION,
        ),
        Method(
            "ClearOverride",
            "End an override or a release now; no error if there is none.",
            action=THERMAL_OVERRIDE_ACTION,
        ),
        Method(
            "GetHistory",
            "The last 1 to 3600 seconds, a row a second at most, oldest first: microseconds since "
            "1970, mean temperature in C, mean power in watts (NaN: unknown), power limit in whole "
            "watts (0: unknown), state.",
            inputs=(Argument("seconds", "u"),),
            outputs=(Argument("rows", "a(tddus)"),),
        ),
        Method(
            "Release",
            "Let go of it for 1 to 86400 seconds, so that it can be reset: nothing watches it "
            "meanwhile and none of its workers is started. Ends by itself or with ClearOverride. "
            "Busy while a worker of it runs.",
            inputs=(Argument("seconds", "u"),),
            action=THERMAL_OVERRIDE_ACTION,
        ),
    ),
    properties=(
        Property(
            "State",
            "s",
            Emits.TRUE,
            lambda card: card.state,
            "normal, alert, critical, recovering, blind (no reading: cooled to be safe), released "
            "or lost.",
        ),
        Property(
            "AlertCelsius",
            "d",
            Emits.TRUE,
            lambda card: card.alert_celsius,
            "Temperature above which it is cooled; NaN: unknown.",
        ),
        Property(
            "CriticalCelsius",
            "d",
            Emits.TRUE,
            lambda card: card.critical_celsius,
            "Temperature above which its work stops; NaN: unknown.",
        ),
        Property(
            "SafeCelsius",
            "d",
            Emits.TRUE,
            lambda card: card.safe_celsius,
            "Temperature below which it gets its limits back; NaN: unknown.",
        ),
        Property(
            "OriginalPowerLimitWatts",
            "d",
            Emits.TRUE,
            lambda card: card.original_power_limit_watts,
            "The administrator's power limit, which it gets back; NaN: unknown.",
        ),
        Property(
            "BatchLimit",
            "u",
            Emits.TRUE,
            lambda card: card.batch_limit,
            "Requests that may run on it together; 0: not limited by heat.",
        ),
        Property(
            "DispatchDuty",
            "d",
            Emits.FALSE,
            lambda card: card.dispatch_duty,
            "Share of the time in which it is given work, 0 to 1.",
        ),
        Property(
            "Throttles",
            "u",
            Emits.FALSE,
            lambda card: card.throttles,
            "Times it had to be cooled since the boot.",
        ),
        Property(
            "Recoveries",
            "u",
            Emits.FALSE,
            lambda card: card.recoveries,
            "Times it got everything back since the boot.",
        ),
        Property(
            "Since",
            "t",
            Emits.TRUE,
            lambda card: card.since,
            "When it entered its state, in microseconds since 1970.",
        ),
        Property(
            "Reason",
            "s",
            Emits.TRUE,
            lambda card: card.reason,
            "Why it is in its state; names an override.",
        ),
        Property(
            "Actuators",
            "a{ss}",
            Emits.INVALIDATES,
            lambda card: card.actuators,
            "What it can be cooled with: name to the reason why it can't be used, empty where it "
            "can.",
        ),
    ),
    signals=(
        Signal(
            "StateChanged",
            "The card went from one thermal state to another.",
            (
                Argument("old_state", "s"),
                Argument("new_state", "s"),
                Argument("celsius", "d"),
                Argument("reason", "s"),
            ),
        ),
    ),
)
