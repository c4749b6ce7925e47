"""Overrides and releases: for a bounded time, towards cooler only. Pure."""

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gpuwarden.control.requests import Override
from gpuwarden.text import utc
from gpuwarden.thermal.decision import Authority, Judgement, Settings, cooler
from gpuwarden.thermal.policy.fixed import alert_settings, critical_settings
from gpuwarden.values import ThermalState

SEVERITY = (
    ThermalState.NORMAL,
    ThermalState.RECOVERING,
    ThermalState.ALERT,
    ThermalState.CRITICAL,
)


class Lease(BaseModel):
    """What an operator asked for.

    :param until_boottime_nanoseconds: its end on CLOCK_BOOTTIME, which no clock step moves.
    :param until_unix_microseconds: the same for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    boot_id: str
    uuid: str
    state: Literal["alert", "critical", "released"]
    until_boottime_nanoseconds: int
    until_unix_microseconds: int

    def runs(self, boottime_nanoseconds: int) -> bool:
        """Whether it has not ended."""
        return boottime_nanoseconds < self.until_boottime_nanoseconds

    @property
    def shown(self) -> Override:
        """As it is answered and published."""
        return Override(state=self.state, until_unix_microseconds=self.until_unix_microseconds)

    @property
    def until(self) -> str:
        """Its end in words, UTC."""
        return utc(self.until_unix_microseconds)


def released(lease: Lease) -> Judgement:
    """The judgement of a card that was let go of."""
    settings = Settings(batch_limit=1, paused=True)
    return Judgement(ThermalState.RELEASED, f"released until {lease.until}", settings)


def overridden(judgement: Judgement, lease: Lease | None, authority: Authority) -> Judgement:
    """The cooler of what was judged and what was asked for."""
    if lease is None or lease.state == "released":
        return judgement
    state = ThermalState(lease.state)
    if state is ThermalState.CRITICAL:
        forced = critical_settings(authority, stop_requested=False)
    else:
        forced = alert_settings(authority)
    text = f"override: {lease.state} until {lease.until}"
    reason = f"{judgement.reason}; {text}" if judgement.reason else text
    settings = cooler(judgement.settings, forced)
    if judgement.state not in SEVERITY:  # blind and lost are said as they are
        return replace(judgement, reason=reason, settings=settings)
    return Judgement(max(judgement.state, state, key=SEVERITY.index), reason, settings)
