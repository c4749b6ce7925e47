# SPDX-License-Identifier: Apache-2.0
"""Overrides and releases: for a bounded time, towards cooler only. Pure."""

from dataclasses import replace

from gpuwarden.control.lease import Lease
from gpuwarden.thermal.decision import Authority, Judgement, Settings, cooler
from gpuwarden.thermal.policy.fixed import alert_settings, critical_settings
from gpuwarden.values import ThermalState

SEVERITY = (
    ThermalState.NORMAL,
    ThermalState.RECOVERING,
    ThermalState.ALERT,
    ThermalState.CRITICAL,
)


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
