"""What the guard knows of its card, and since when it is in which state. Pure."""

from dataclasses import dataclass, field, replace

from gpuwarden.thermal.decision import Judgement, Settings
from gpuwarden.thermal.observation import CardName, NotSeen, Observation, Seen, Trouble
from gpuwarden.values import ThermalState

BLIND_AFTER_SECONDS = 3.0  # design, "A hung driver": also how long a snapshot may be trusted
STARTING = Judgement(ThermalState.BLIND, "starting", Settings(batch_limit=1))
HELD = (ThermalState.ALERT, ThermalState.CRITICAL)


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

    @property
    def state(self) -> ThermalState:
        """The card's state."""
        return self.judgement.state


def take(view: View, observation: Observation, now: float) -> View:
    """The view after an attempt that was completed at ``now``."""
    if isinstance(observation, Seen):
        return replace(view, card=observation.card, seen=observation, seen_at=now, trouble=None)
    return replace(view, card=observation.card, trouble=observation)


def blindness(view: View, now: float) -> tuple[ThermalState, str] | None:
    """``blind`` or ``lost`` and why, where the card can't be judged by what it reads."""
    trouble = view.trouble
    if trouble is not None and trouble.trouble is Trouble.LOST:
        return ThermalState.LOST, trouble.text
    if trouble is not None and trouble.trouble is not Trouble.SENSOR:
        return ThermalState.BLIND, trouble.text
    silence = now - view.seen_at
    if view.seen is not None and silence < BLIND_AFTER_SECONDS:
        return None
    if trouble is not None:
        return ThermalState.BLIND, trouble.text
    if view.seen is None and silence < BLIND_AFTER_SECONDS:
        return ThermalState.BLIND, "starting"
    return ThermalState.BLIND, f"the driver has not answered for {silence:.0f} s"


def judged(view: View, judgement: Judgement, unix_microseconds: int) -> View:
    """The view with a new judgement, and what follows for counters and since."""
    before, after = view.state, judgement.state
    if after in (ThermalState.BLIND, ThermalState.LOST):
        view = replace(view, seen=None)
    if before == after:
        return replace(view, judgement=judgement)
    was_held = before in (*HELD, ThermalState.RECOVERING)
    return replace(
        view,
        judgement=judgement,
        since_unix_microseconds=unix_microseconds,
        throttles=view.throttles + (after in HELD and not was_held),
        recoveries=view.recoveries + (after is ThermalState.NORMAL and was_held),
    )
