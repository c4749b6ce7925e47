# SPDX-License-Identifier: Apache-2.0
"""From what is seen, what was asked for and what can be moved to what is to be done. Pure."""

from dataclasses import dataclass, replace

from gpuwarden.config.thermal import CardWishes
from gpuwarden.control.lease import Lease
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.thermal.decision import Authority, Judgement, Policy, Reading, Settings
from gpuwarden.thermal.lease import overridden
from gpuwarden.thermal.observation import reading_of
from gpuwarden.thermal.policy import make_policy
from gpuwarden.thermal.policy.fixed import alert_settings
from gpuwarden.thermal.policy.sensors import all_safe, limits_of
from gpuwarden.thermal.thresholds import (
    NO_WISHES,
    Thresholds,
    ThresholdsError,
    thresholds_of,
)
from gpuwarden.thermal.view import HELD, View, blindness
from gpuwarden.values import ThermalState


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about one card's policy."""

    wishes: CardWishes = NO_WISHES
    decide_seconds: float = 0.5
    safe_seconds: float = 30.0


class Mind:
    """Decides for one card.

    :ivar thresholds: None until the card was seen.
    :ivar refusal: why the configured thresholds were refused; empty where they were not.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.thresholds: Thresholds | None = None
        self.refusal = ""
        self._policy: Policy | None = None
        self._limits: CardLimits | None = None
        self._is_current = False
        self._is_held = False
        self._authority = Authority()

    @property
    def policy_name(self) -> str:
        """The policy in use."""
        return self.rules.wishes.policy

    def check(self, rules: Rules) -> None:
        """Whether these rules suit the card. Raises ThresholdsError."""
        if self._limits is not None:
            thresholds_of(self._limits, rules.wishes)

    def follow(self, rules: Rules) -> None:
        """Go by other rules from the next look on."""
        if rules != self.rules:
            self.rules, self._policy, self._is_current = rules, None, False

    def learn(self, limits: CardLimits, authority: Authority, view: View) -> bool:
        """Take in what the card says of itself; True where its thresholds are new.

        A policy that is new, to a card that had to be cooled, begins as at alert.
        """
        fresh = not self._is_current or limits != self._limits
        if fresh:
            self._limits, self._is_current = limits, True
            self.refusal = ""
            try:
                self.thresholds = thresholds_of(limits, self.rules.wishes)
            except ThresholdsError as error:
                self.refusal = str(error)
                self.thresholds = thresholds_of(limits)
        assert self.thresholds is not None, "set with the first limits"
        authority = replace(
            authority,
            rated_watts=limits.power_default_watts,
            shutdown_celsius=limits.shutdown_celsius,
        )
        if self._policy is None:
            self._policy = make_policy(
                self.policy_name,
                authority,
                self.thresholds,
                decide_seconds=self.rules.decide_seconds,
                safe_seconds=self.rules.safe_seconds,
            )
            if view.held:
                self._policy.blind(view.seen_at)
        elif fresh or authority != self._authority:
            self._policy.adopt(authority, self.thresholds)
        self._authority = authority
        return fresh

    def meet(self, authority: Authority) -> None:
        """Take in what can be moved on a card that is open and can't be read."""
        if self._policy is None:
            self._authority = authority

    def decide(self, reading: Reading, lease: Lease | None) -> Judgement:
        """What to do after a reading; needs :meth:`learn` before."""
        assert self._policy is not None, "learnt before"
        own = self._policy.decide(reading)
        self._is_held = own.state in HELD
        return overridden(own, lease, self._authority)

    def is_hot(self, view: View) -> bool:
        """Whether the card could overheat if it got everything back; an override is no heat."""
        if view.seen is None or self.thresholds is None:
            return view.state is ThermalState.BLIND
        reading = reading_of(view.seen, view.seen_at)
        return self._is_held or not all_safe(limits_of(self.thresholds), reading)

    def without_reading(self, view: View, now: float, lease: Lease | None) -> Judgement | None:
        """What to do without news; None while the last judgement still holds."""
        found = blindness(view, now)
        if found is None:
            return None
        state, reason = found
        if state is ThermalState.LOST:
            settings = Settings(batch_limit=1, paused=True)
        elif self._policy is None:
            settings = alert_settings(self._authority)
        else:
            settings = self._policy.blind(now).settings
        return overridden(Judgement(state, reason, settings), lease, self._authority)
