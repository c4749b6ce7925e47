# SPDX-License-Identifier: Apache-2.0
"""What the configuration must fit on this very node, as far as that is known now."""

import re
from collections.abc import Iterable

from gpuwarden import names
from gpuwarden.config import Configuration
from gpuwarden.config.rules import (
    Conflict,
    Rule,
    cards_are,
    front_door_is_at,
    housekeeping_is_among,
    profiles_are_known,
)
from gpuwarden.config.urls import Door
from gpuwarden.control.snapshot import SnapshotError, boot_id, read_snapshot
from gpuwarden.control.states import PlanData
from gpuwarden.profiles import known_profiles, tuned_is_installed
from gpuwarden.systemd.command import SystemctlError, unit_property
from gpuwarden.topology.sysfs import SYSFS, read_online_cpus, read_present_cpus

_LISTENS = re.compile(r"^\[?(?P<host>[^\s\]]+?)\]?:(?P<port>\d+) \(Stream\)$", re.MULTILINE)


def node_rules() -> tuple[Rule, ...]:
    """Rules of this node's cards, CPUs, addresses and tuner; what isn't known forbids nothing."""
    return (
        _cards_are_here,
        _housekeeping_is_here,
        _hooks_spare_the_front_door,
        _tuned_knows_the_profiles,
    )


def front_door() -> list[Door]:
    """Where the front door's socket listens, an administrator's drop-ins included.

    :raises SystemctlError: systemd doesn't say.
    """
    shown = unit_property(names.GATEWAY_SOCKET_UNIT, "Listen")
    return [Door(found["host"], int(found["port"])) for found in _LISTENS.finditer(shown)]


def _cards_are_here(configuration: Configuration) -> Iterable[Conflict]:
    try:
        plan = read_snapshot(names.PLAN_FILE, PlanData)
    except SnapshotError:
        return ()  # nothing was planned yet, so nobody knows the cards
    if plan.boot_id != boot_id() or not plan.data.cards:
        return ()
    return cards_are({card.index: card.uuid for card in plan.data.cards})(configuration)


def _housekeeping_is_here(configuration: Configuration) -> Iterable[Conflict]:
    try:
        return housekeeping_is_among(read_present_cpus(SYSFS), read_online_cpus(SYSFS))(
            configuration
        )
    except (OSError, ValueError):
        return ()  # no kernel to ask: a check somewhere else


def _hooks_spare_the_front_door(configuration: Configuration) -> Iterable[Conflict]:
    if not any(hook.post for hook in configuration.thermal.hooks):
        return ()
    try:
        return front_door_is_at(front_door())(configuration)
    except SystemctlError:
        return ()  # no systemd to ask: the shipped address is refused in any case


def _tuned_knows_the_profiles(configuration: Configuration) -> Iterable[Conflict]:
    if not tuned_is_installed():
        return ()  # it is suggested, not needed; whoever installs it is told then
    return profiles_are_known(known_profiles())(configuration)
