# SPDX-License-Identifier: Apache-2.0
"""What the configuration says about one card, as its guard takes it."""

from pathlib import Path

from gpuwarden.config import Configuration
from gpuwarden.control.snapshot import SnapshotError, boot_id, read_snapshot
from gpuwarden.control.states import PlanData
from gpuwarden.thermal.actuators import Options
from gpuwarden.thermal.mind import Rules


def card_uuid(plan_file: Path, gpu_index: int) -> str:
    """The planned card's UUID; empty where this boot has no plan yet or no such card."""
    try:
        snapshot = read_snapshot(plan_file, PlanData)
    except SnapshotError:
        return ""  # the guard says so with its state, and learns the card once it is planned
    if snapshot.boot_id != boot_id():
        return ""
    return next((card.uuid for card in snapshot.data.cards if card.index == gpu_index), "")


def rules_for(configuration: Configuration, uuid: str) -> Rules:
    """Thresholds, policy and pace."""
    thermal = configuration.thermal
    return Rules(
        wishes=thermal.of_card(uuid),
        decide_seconds=1 / min(thermal.decide_hertz, thermal.sample_hertz),
        safe_seconds=thermal.safe_seconds,
    )


def options_for(configuration: Configuration, uuid: str) -> Options:
    """Which actuators may be used."""
    wishes = configuration.thermal.of_card(uuid)
    return Options(
        memory_clock_lock=configuration.thermal.memory_clock_lock,
        sm_clock_baseline_mhz=wishes.sm_clock_baseline_mhz or None,
        max_batch=configuration.workers.max_batch,
    )
