# SPDX-License-Identifier: Apache-2.0
"""The fixed answers to heat, which need no model: the articles' steps. Pure."""

from dataclasses import replace

from gpuwarden.thermal.decision import Authority, Settings, cooler

ALERT_POWER_SHARE = 0.70  # of the original limit: below it throughput falls off (measured, 3090)
# A cap of 70 % makes the driver choose about 0.8 of the highest clock (watts go with its 1.7th
# power, H200), so the lock adds nothing to a cap that works and stands in for one that doesn't.
ALERT_CLOCK_SHARE = 0.80
ALERT_BATCH = 1
SOFTWARE_DUTY = 0.5  # where nothing on the card itself can be set


def alert_settings(authority: Authority) -> Settings:
    """The articles' alert: a fixed cap, lowered clocks, single requests (eco)."""
    clock = None
    if authority.sm_clocks_mhz is not None:
        lowest, highest = authority.sm_clocks_mhz
        clock = max(lowest, int(ALERT_CLOCK_SHARE * highest))
    limit = None
    if authority.original_watts is not None:
        limit = round(ALERT_POWER_SHARE * authority.original_watts, 1)
        limit = min(authority.original_watts, max(authority.minimum_watts, limit))
    helpless = limit is None and clock is None
    return Settings(
        power_limit_watts=limit,
        sm_clock_mhz=clock,
        memory_clock_mhz=authority.memory_clock_mhz,
        batch_limit=ALERT_BATCH,
        dispatch_duty=SOFTWARE_DUTY if helpless else 1.0,
    )


def critical_settings(authority: Authority, stop_requested: bool) -> Settings:
    """Least power, lowest clocks, no new work."""
    limit = None
    if authority.original_watts is not None:
        limit = min(authority.original_watts, authority.minimum_watts)
    return Settings(
        power_limit_watts=limit,
        sm_clock_mhz=None if authority.sm_clocks_mhz is None else authority.sm_clocks_mhz[0],
        memory_clock_mhz=authority.memory_clock_mhz,
        batch_limit=ALERT_BATCH,
        paused=True,
        stop_requested=stop_requested,
    )


def no_higher(settings: Settings, former: Settings) -> Settings:
    """These settings with no limit and no clock above the former: for a card that is at alert."""
    both = cooler(settings, former)
    return replace(
        settings,
        power_limit_watts=both.power_limit_watts,
        sm_clock_mhz=both.sm_clock_mhz,
        memory_clock_mhz=both.memory_clock_mhz,
    )


def within_means(settings: Settings, authority: Authority) -> Settings:
    """These settings as far as this card can still be set; nothing above its original limit."""
    limit, clock = settings.power_limit_watts, settings.sm_clock_mhz
    original, clocks = authority.original_watts, authority.sm_clocks_mhz
    if limit is not None and (original is None or limit >= original):
        limit = None
    elif limit is not None and original is not None:
        limit = max(limit, min(authority.minimum_watts, original))
    if clock is not None and (clocks is None or clock >= clocks[1]):
        clock = None
    elif clock is not None and clocks is not None:
        clock = max(clock, clocks[0])
    memory = settings.memory_clock_mhz if authority.memory_clock_mhz is not None else None
    return replace(settings, power_limit_watts=limit, sm_clock_mhz=clock, memory_clock_mhz=memory)
