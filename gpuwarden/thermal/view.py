# SPDX-License-Identifier: Apache-2.0
"""What the guard knows of its card, and since when it is in which state. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gpuwarden.thermal.decision import Judgement, Settings
from gpuwarden.thermal.observation import CardName, NotSeen, Observation, Seen, Trouble
from gpuwarden.values import ThermalState

BLIND_AFTER_SECONDS = 3.0  # design, "A hung driver": also how long a snapshot may be trusted
STARTING = Judgement(ThermalState.BLIND, "starting", Settings(batch_limit=1))
HELD = (ThermalState.ALERT, ThermalState.CRITICAL)
IDLE = "idle"  # the clock event reason of a card that has nothing to do: nobody is slowed by it
UNREAD = (ThermalState.BLIND, ThermalState.LOST, ThermalState.RELEASED)


@dataclass(frozen=True, slots=True)
class View:
    """What is known of the card.

    :ivar seen: the last sample; kept for as long as it may be trusted.
    :ivar seen_at: its moment, in seconds of the monotonic clock; the start before the first.
    :ivar trouble: why the last attempt brought none.
    :ivar judgement: what was last decided about it.
    :ivar since_unix_microseconds: when the state was entered.
    :ivar throttles: times it had to be cooled since the boot.
    :ivar recoveries: times it got everything back since the boot.
    :ivar held: it had to be cooled and has not got everything back since.
    :ivar throttle_seconds: by clock event reason, how long it held the clocks down since the boot.
    :ivar state_seconds: by state, how long the card was in it since the boot.
    """

    gpu_index: int
    seen_at: float
    since_unix_microseconds: int
    card: CardName = field(default_factory=CardName)
    seen: Seen | None = None
    trouble: NotSeen | None = None
    judgement: Judgement = STARTING
    throttles: int = 0
    recoveries: int = 0
    held: bool = False
    throttle_seconds: Mapping[str, float] = field(default_factory=dict)
    state_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def state(self) -> ThermalState:
        """The card's state."""
        return self.judgement.state


def take(view: View, observation: Observation, now: float) -> View:
    """The view after an attempt that was completed at ``now``."""
    if isinstance(observation, Seen):
        throttled = _throttled(view, now)
        return replace(
            view,
            card=observation.card,
            seen=observation,
            seen_at=now,
            trouble=None,
            throttle_seconds=throttled,
        )
    return replace(view, card=observation.card, trouble=observation)


def _throttled(view: View, now: float) -> Mapping[str, float]:
    """The seconds by reason when a sample comes: those since the last one go to what that said."""
    passed = now - view.seen_at
    if view.seen is None or not 0 <= passed <= BLIND_AFTER_SECONDS:
        return view.throttle_seconds  # what held the clocks down meanwhile, nobody has seen
    reasons = (each for each in view.seen.sample.clock_event_reasons if each != IDLE)
    return _longer(view.throttle_seconds, reasons, passed)


def aged(view: View, seconds: float) -> View:
    """The view after so many seconds more in its state."""
    longer = _longer(view.state_seconds, (view.state.value,), seconds)
    return replace(view, state_seconds=longer)


def _longer(so_far: Mapping[str, float], names: Iterable[str], seconds: float) -> dict[str, float]:
    return {**so_far, **{name: so_far.get(name, 0.0) + seconds for name in names}}


def taken_back(view: View, now: float) -> View:
    """The view of a card whose release has ended: it is to be read within the usual time."""
    return replace(view, seen_at=now, trouble=None)


def blindness(view: View, now: float) -> tuple[ThermalState, str] | None:
    """``blind`` or ``lost`` and why, where the card can't be judged by what it reads."""
    trouble = view.trouble
    if trouble is not None and trouble.trouble is Trouble.LOST:
        return ThermalState.LOST, trouble.text
    if trouble is not None and trouble.trouble is not Trouble.SENSOR:
        return ThermalState.BLIND, trouble.text
    silence = now - view.seen_at
    is_taken_back = view.state is ThermalState.RELEASED
    if (view.seen is not None or is_taken_back) and silence < BLIND_AFTER_SECONDS:
        return None
    if trouble is not None:
        return ThermalState.BLIND, trouble.text
    if view.seen is None and silence < BLIND_AFTER_SECONDS:
        return ThermalState.BLIND, "starting"
    return ThermalState.BLIND, f"the driver has not answered for {silence:.0f} s"


def judged(view: View, judgement: Judgement, unix_microseconds: int) -> View:
    """The view with a new judgement, and what follows for counters and since."""
    before, after = view.state, judgement.state
    if after in UNREAD:
        view = replace(view, seen=None)
    if before == after:
        return replace(view, judgement=judgement)
    throttled = after in HELD and not view.held
    recovered = after is ThermalState.NORMAL and view.held
    return replace(
        view,
        judgement=judgement,
        since_unix_microseconds=unix_microseconds,
        throttles=view.throttles + throttled,
        recoveries=view.recoveries + recovered,
        held=throttled or (view.held and not recovered),
    )
