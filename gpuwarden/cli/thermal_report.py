# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden thermal --json``: its schema, which docs/operate.md describes. Pure."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gpuwarden.chart.series import Moment, buckets
from gpuwarden.cli.thermal_sources import HISTORY, HISTORY_SECONDS, CardHeat
from gpuwarden.control.requests import Override, ThermalEvent
from gpuwarden.control.states import ThermalData
from gpuwarden.values import ThermalState

MINUTES = 60


class Minute(BaseModel):
    """A minute of a card: means, and the extremes within."""

    unix_microseconds: int
    state: ThermalState
    celsius: float | None
    celsius_lowest: float | None
    celsius_highest: float | None
    memory_celsius: float | None
    watts: float | None
    watts_highest: float | None
    limit_watts: float | None


class Highest(BaseModel):
    """The highest of the last hour."""

    celsius: float | None
    memory_celsius: float | None
    watts: float | None


class CardReport(BaseModel):
    """One card; see :class:`CardHeat`. ``minutes`` and ``highest`` are of the last hour."""

    model_config = ConfigDict(frozen=True)

    gpu: int
    source: Literal["guard", "bus", "snapshot"]
    fresh: bool
    unknown: list[str]
    caveat: str
    data: ThermalData
    policy: str | None
    memory_alert_celsius: float | None
    memory_critical_celsius: float | None
    override: Override | None
    override_seconds_left: float | None
    events: list[ThermalEvent] | None
    highest: Highest | None
    minutes: list[Minute] | None


class ThermalReport(BaseModel):
    """The whole document."""

    schema_version: int = Field(1, serialization_alias="schema")
    cards: list[CardReport]


def report(cards: Sequence[CardHeat], now_unix_seconds: float) -> ThermalReport:
    """What is printed for scripts; null is unknown."""
    return ThermalReport(cards=[_card(heat, now_unix_seconds) for heat in cards])


def last_hour(heat: CardHeat, now_unix_seconds: float, parts: int = MINUTES) -> list[Moment | None]:
    """The hour up to now in equal parts; None where nothing is known."""
    start = now_unix_seconds - HISTORY_SECONDS
    return buckets(heat.moments, start, HISTORY_SECONDS / parts, parts)


def highest(heat: CardHeat) -> Highest:
    """The highest readings in the history."""
    return Highest(
        celsius=_most([each.celsius_highest for each in heat.moments]),
        memory_celsius=_most([each.memory_celsius for each in heat.moments]),
        watts=_most([each.watts_highest for each in heat.moments]),
    )


def seconds_left(override: Override, now_unix_seconds: float) -> float:
    """How long an override still holds."""
    return max(override.until_unix_microseconds / 1e6 - now_unix_seconds, 0.0)


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _card(heat: CardHeat, now: float) -> CardReport:
    has_history = HISTORY not in heat.unknown
    minutes = [_minute(each) for each in last_hour(heat, now) if each is not None]
    left = None if heat.override is None else round(seconds_left(heat.override, now), 1)
    return CardReport(
        gpu=heat.data.index,
        source=heat.source,
        fresh=heat.fresh,
        unknown=list(heat.unknown),
        caveat=heat.caveat,
        data=heat.data,
        policy=heat.policy,
        memory_alert_celsius=heat.memory_alert_celsius,
        memory_critical_celsius=heat.memory_critical_celsius,
        override=heat.override,
        override_seconds_left=left,
        events=list(heat.events) if heat.source == "guard" else None,
        highest=highest(heat) if has_history else None,
        minutes=minutes if has_history else None,
    )


def _minute(moment: Moment) -> Minute:
    return Minute(
        unix_microseconds=int(moment.at_seconds * 1e6),
        state=moment.state,
        celsius=moment.celsius,
        celsius_lowest=moment.celsius_lowest,
        celsius_highest=moment.celsius_highest,
        memory_celsius=moment.memory_celsius,
        watts=moment.watts,
        watts_highest=moment.watts_highest,
        limit_watts=moment.limit_watts,
    )
