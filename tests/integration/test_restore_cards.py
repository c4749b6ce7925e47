# SPDX-License-Identifier: Apache-2.0
"""What the package's removal does for the cards: all back and read back, or said with the watts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.hot_cards import ALERT_WATTS, ORIGINAL_WATTS, Cards, hot_cards


@pytest.fixture
def cards(tmp_path: Path, library: Path) -> Iterator[Cards]:
    with hot_cards(tmp_path, library) as made:
        yield made


@pytest.fixture
def kept(cards: Cards) -> Cards:
    """A hot card whose guard was stopped: it keeps what cools it."""
    with cards.guarded(0):
        cards.becomes_hot()
    return cards


def test_a_hot_card_is_restored_too_for_nobody_will_do_it_later(kept: Cards) -> None:
    done = kept.restore_cards()
    assert (done.stdout, done.stderr) == ("GPU 0: 700 W restored\n", "")
    assert done.returncode == 0
    assert (kept.limit_watts, kept.sm_lock_mhz) == (ORIGINAL_WATTS, None)
    assert kept.record() is None


def test_a_card_whose_guard_was_killed_is_restored(cards: Cards) -> None:
    with cards.guard_process(0) as guard:
        cards.becomes_hot()
        guard.kill()
    assert cards.restore_cards().stdout == "GPU 0: 700 W restored\n"
    assert cards.limit_watts == ORIGINAL_WATTS


def test_cards_with_nothing_of_ours_are_not_spoken_of(cards: Cards) -> None:
    with cards.guarded(0), cards.guarded(1):
        cards.becomes_hot()
        cards.load(0.0)
        cards.wait_for_limit(ORIGINAL_WATTS)
    done = cards.restore_cards()
    assert (done.stdout, done.returncode) == ("", 0)


def test_a_card_that_refuses_is_said_with_its_watts_and_what_to_do(kept: Cards) -> None:
    kept.hurt("no-permission")
    done = kept.restore_cards()
    assert done.returncode == 1
    assert done.stdout.startswith(
        "GPU 0: 490 W left, was 700 W, SM clock left at most 1575 MHz: card "
    )
    assert "permission denied" in done.stdout
    commands = f"nvidia-smi -i {kept.uuid} -pl 700 and nvidia-smi -i {kept.uuid} -rgc"
    assert done.stdout.endswith(f"{commands} put it back\n")
    assert "turned off in the configuration" not in done.stdout
    kept.mend()
    assert kept.restore_cards().stdout == "GPU 0: 700 W restored\n"


def test_a_driver_that_hangs_keeps_nobody_waiting(kept: Cards) -> None:
    kept.hurt("hang")
    done = kept.restore_cards(card_seconds=1.0)
    assert done.returncode == 1
    assert "490 W left, was 700 W" in done.stdout
    assert "the NVIDIA driver did not answer within 1 s" in done.stdout


def test_a_card_that_is_gone_is_said_with_what_was_left_on_it(kept: Cards) -> None:
    kept.hurt("lost")
    done = kept.restore_cards()
    assert done.returncode == 1
    assert done.stdout.startswith("GPU 0: 490 W left, was 700 W")


def test_a_limit_of_somebody_else_stays(kept: Cards) -> None:
    kept.hurt("external-limit", 600)
    done = kept.restore_cards()
    assert done.stdout == "GPU 0: 600 W set from outside since, stays\n"
    assert (kept.limit_watts, kept.sm_lock_mhz) == (600, None)


def test_an_original_that_nobody_knows_is_said(kept: Cards) -> None:
    for file in [*kept.root.glob("var/*.json"), *kept.root.glob("run/*.json")]:
        file.write_text(file.read_text()[:20])
    done = kept.restore_cards()
    assert done.returncode == 1
    assert done.stdout.startswith("GPU 0: its original limit is not known: ")
    assert "490 W" in done.stdout
    assert kept.limit_watts == ALERT_WATTS


def test_one_damaged_copy_costs_nothing(kept: Cards) -> None:
    shutil.rmtree(kept.root / "run")
    assert kept.restore_cards().stdout == "GPU 0: 700 W restored\n"


def test_a_driver_that_was_unloaded_took_the_settings_with_it(
    tmp_path: Path, library: Path
) -> None:
    with hot_cards(tmp_path, library) as cards, cards.guarded(0):
        cards.becomes_hot()
    done = cards.restore_cards()
    assert done.stdout == "GPU 0: no driver is loaded, and what was set went with it\n"
    assert done.returncode == 0


def test_without_a_plan_of_this_boot_there_is_nothing_to_do(cards: Cards) -> None:
    (cards.root / "plan.json").unlink()
    done = cards.restore_cards()
    assert (done.stdout, done.returncode) == ("", 0)


def test_it_takes_no_arguments(cards: Cards) -> None:
    done = cards.restore_cards("0")
    assert done.returncode == 2
    assert "restore-cards takes no arguments, found 0" in done.stderr
