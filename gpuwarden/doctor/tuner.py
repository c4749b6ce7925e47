# SPDX-License-Identifier: Apache-2.0
"""The host's tuner: does tuned run with one of our profiles, where that is wanted?"""

from dataclasses import dataclass

from gpuwarden.doctor.findings import Finding, Question
from gpuwarden.doctor.node import TUNED_UNIT, Node
from gpuwarden.doctor.places import Absence, Text

ACTIVE_PROFILE = "/etc/tuned/active_profile"

# docs/tuning.md: tuned is suggested; it is used where [tuning] enabled = true.
_TUNED = Question(
    "tuned",
    "active with a profile of [tuning]",
    "the host's settings are to follow the clock, and nobody else sets them",
)


@dataclass(frozen=True, slots=True)
class TunerFacts:
    """What [tuning] wants, and tuned's state.

    :ivar profiles: of the day and of the night; empty where [tuning] is off.
    :ivar unit: the state of tuned's unit; empty where systemd says nothing.
    :ivar loaded: whether there is such a unit at all.
    """

    profiles: tuple[str, ...]
    unit: str
    loaded: bool
    active_profile: Text


def read(node: Node) -> TunerFacts:
    """Raises OSError where the disk fails."""
    unit = node.units.get(TUNED_UNIT)
    return TunerFacts(
        profiles=_profiles(node),
        unit=unit.active if unit else "",
        loaded=bool(unit and unit.loaded),
        active_profile=node.text(ACTIVE_PROFILE),
    )


def judge(facts: TunerFacts) -> list[Finding]:
    """One finding."""
    return [_tuned(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def _profiles(node: Node) -> tuple[str, ...]:
    if node.configuration is None or not node.configuration.tuning.enabled:
        return ()
    return (node.configuration.tuning.day_profile, node.configuration.tuning.night_profile)


def _tuned(facts: TunerFacts) -> Finding:
    if not facts.profiles:
        return _TUNED.not_applicable("[tuning] is off: this host is as its distribution made it")
    if not facts.unit:
        return _TUNED.unknown("systemd can't be asked", f"systemctl status {TUNED_UNIT}")
    return _profile(facts)


def _profile(facts: TunerFacts) -> Finding:
    if not facts.loaded:
        return _TUNED.wrong("not installed", "apt install tuned")
    if facts.unit != "active":
        return _TUNED.wrong(facts.unit, f"systemctl enable --now {TUNED_UNIT}")
    if isinstance(facts.active_profile, Absence):
        return _TUNED.unknown(f"{ACTIVE_PROFILE}: {facts.active_profile.value}", "tuned-adm active")
    if not set(facts.active_profile.split()) & set(facts.profiles):
        found = facts.active_profile or "no profile"
        return _TUNED.wrong(found, f"tuned-adm profile {facts.profiles[0]}")
    return _TUNED.good(facts.active_profile)
