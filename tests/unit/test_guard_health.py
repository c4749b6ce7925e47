# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.config.health import HealthSettings
from gpuwarden.guard import health
from gpuwarden.guard.health import (
    GHOST_SCANS,
    OVER_MEMORY_SECONDS,
    SILENT_SECONDS,
    Vitals,
    Watch,
    after_canary,
    ailment,
    needs_memory,
    next_watch,
    recycle_reason,
    restart_reason,
    wants_canary,
)
from gpuwarden.guard.presence import Presence
from gpuwarden.values import WorkerState

LIFE = (1000, 1)
SETTINGS = HealthSettings()
GIBIBYTE = 2**30
MISSING = None


def absent(scan: int, scanner: int = 7) -> Presence:
    return Presence((scanner, scan), listed=False)


def present(scan: int, scanner: int = 7) -> Presence:
    return Presence((scanner, scan), listed=True)


def well(presence: Presence | None = None, **changes: object) -> Vitals:
    vitals: dict[str, object] = {"life": LIFE, "serves": True, "presence": presence}
    return Vitals(**(vitals | changes))  # type: ignore[arg-type]


def watched(*looks: Vitals, step_seconds: float = 1.0) -> Watch:
    """The watch after these looks, the last of them at 0."""
    watch, start = None, -step_seconds * (len(looks) - 1)
    for number, look in enumerate(looks):
        watch = next_watch(watch, look, start + number * step_seconds, SETTINGS)
    assert watch is not None
    return watch


SUSPECT = watched(*(well(absent(scan)) for scan in range(1, GHOST_SCANS + 1)))


# --- ghosts


def test_a_worker_whose_processes_no_scan_lists_is_asked_after_three_and_is_no_ghost_yet() -> None:
    two = watched(well(absent(1)), well(absent(2)))
    assert not wants_canary(two, 0)
    assert wants_canary(SUSPECT, 0)
    assert ailment(SUSPECT) is None
    assert restart_reason(SUSPECT, 1e9, SETTINGS) == ""


def test_a_card_that_refuses_makes_a_suspect_a_ghost_that_is_restarted_with_the_reason() -> None:
    ghost = after_canary(SUSPECT, LIFE[0], "lost", "the simulator ended the context", 0)
    ill = ailment(ghost)
    assert ill is not None
    assert ill.state is WorkerState.GHOST
    reason = restart_reason(ghost, 0, SETTINGS)
    assert reason.startswith("ghost: ")
    assert "the simulator ended the context" in reason


@pytest.mark.parametrize("outcome", ["answered", "unused", "busy", "silent", "unknown", "new word"])
def test_any_other_answer_leaves_it_alone_for_a_while(outcome: str) -> None:
    watch = after_canary(SUSPECT, LIFE[0], outcome, "", 0)
    assert ailment(watch) is None
    assert not wants_canary(watch, 0)


def test_one_that_was_busy_is_asked_again_and_one_that_answered_after_new_scans_only() -> None:
    busy = after_canary(SUSPECT, LIFE[0], "busy", "", 0)
    assert wants_canary(busy, health.ASK_AGAIN_SECONDS)
    fine = after_canary(SUSPECT, LIFE[0], "answered", "", 0)
    assert not wants_canary(fine, 1e9)


def test_the_answer_of_another_process_proves_nothing() -> None:
    assert after_canary(SUSPECT, LIFE[0] + 1, "lost", "", 0) == SUSPECT


def test_an_answer_that_comes_when_nobody_is_suspect_any_more_proves_nothing() -> None:
    listed_again = next_watch(SUSPECT, well(present(4)), 0, SETTINGS)
    assert after_canary(listed_again, LIFE[0], "lost", "", 0) == listed_again


@pytest.mark.parametrize(
    "look",
    [
        well(present(4)),
        well(MISSING),  # stale, incomplete, blind
        well(absent(5)),  # a scan between was missed
        well(absent(4, scanner=8)),  # the scanner was restarted
        well(absent(4), life=(1000, 2)),
        well(absent(4), serves=False),
    ],
    ids=["listed", "unknown", "missed", "another scanner", "another life", "not serving"],
)
def test_whatever_breaks_the_row_begins_the_count_anew(look: Vitals) -> None:
    assert next_watch(SUSPECT, look, 0, SETTINGS).absent_scans <= 1
    ghost = after_canary(SUSPECT, LIFE[0], "lost", "gone", 0)
    assert ailment(next_watch(ghost, look, 0, SETTINGS)) is None


def test_the_same_scan_counts_once_however_often_it_is_looked_at() -> None:
    assert watched(*[well(absent(1))] * 100).absent_scans == 1


presences = st.one_of(
    st.none(),
    st.builds(Presence, st.tuples(st.integers(7, 8), st.integers(1, 6)), listed=st.booleans()),
)
lives = st.sampled_from([LIFE, (1000, 2)])
outcomes = st.sampled_from(["lost", "answered", "unused", "busy", "silent", "unknown"])
steps = st.one_of(
    st.builds(
        Vitals,
        lives,
        serves=st.booleans(),
        is_stalled=st.booleans(),
        silent_seconds=st.none() | st.floats(0, 100),
        presence=presences,
    ),
    outcomes,
)


@given(st.lists(steps, max_size=40))
def test_law_a_ghost_was_absent_from_three_complete_scans_in_a_row_and_lost_by_its_own_word(
    history: list[Vitals | str],
) -> None:
    watch: Watch | None = None
    row: list[tuple[int, int]] = []
    lost = False
    for now, step in enumerate(history):
        if isinstance(step, str):
            if watch is not None:
                lost |= step == "lost" and watch.is_suspect
                watch = after_canary(watch, watch.life[0], step, "", float(now))
            continue
        if watch is not None and step.life != watch.life:
            row = []
        if not step.serves or step.presence is None or step.presence.listed:
            row = []
        elif not row or step.presence.scan == (row[-1][0], row[-1][1] + 1):
            row.append(step.presence.scan)
        elif step.presence.scan != row[-1]:
            row = [step.presence.scan]
        watch = next_watch(watch, step, float(now), SETTINGS)
        ill = ailment(watch)
        if ill is not None and ill.state is WorkerState.GHOST:
            assert len(row) >= GHOST_SCANS
            assert lost


@given(st.lists(st.sampled_from([well(MISSING), well(MISSING, silent_seconds=1.0)]), max_size=50))
def test_law_unknown_ends_nobody(history: list[Vitals]) -> None:
    watch: Watch | None = None
    for now, look in enumerate(history):
        watch = next_watch(watch, look, float(now), SETTINGS)
        watch = after_canary(watch, LIFE[0], "lost", "", float(now))
        assert restart_reason(watch, 1e9, SETTINGS) == ""
        assert recycle_reason(watch, 1e9, SETTINGS) == ""


# --- a context that an error has killed: its process stands in the list still


def answering(requests: int, failures: int) -> Vitals:
    return well(present(requests), requests=requests, failures=failures)


FAILING = watched(answering(10, 0), answering(11, 1), answering(13, 3))


def test_a_worker_all_of_whose_requests_fail_is_asked_and_restarted_if_its_card_is_gone() -> None:
    assert wants_canary(FAILING, 0)
    refused = after_canary(FAILING, LIFE[0], "lost", "AcceleratorError", 0)
    assert restart_reason(refused, 0, SETTINGS) == "card lost: AcceleratorError"
    assert ailment(refused) is None  # no ghost: a scan lists it
    again = next_watch(refused, answering(14, 4), 1, SETTINGS)
    assert restart_reason(again, 1, SETTINGS) == "card lost: AcceleratorError"


@pytest.mark.parametrize("outcome", ["answered", "unused", "busy", "silent"])
def test_requests_that_fail_for_another_reason_restart_nobody(outcome: str) -> None:
    watch = after_canary(FAILING, LIFE[0], outcome, "", 0)
    assert restart_reason(watch, 1e9, SETTINGS) == ""
    assert not wants_canary(watch, 0)


@pytest.mark.parametrize(
    "looks",
    [
        [answering(10, 0), answering(12, 2)],
        [answering(10, 7), answering(10, 7)],
        [answering(10, 0), answering(12, 2), answering(13, 2), answering(14, 3)],
        [answering(10, 10), answering(3, 3)],
    ],
    ids=["two", "long ago", "one worked", "counted anew"],
)
def test_a_few_failures_are_no_suspicion(looks: list[Vitals]) -> None:
    assert not wants_canary(watched(*looks), 1e9)


# --- stuck


def test_a_batch_past_its_limit_is_stuck_at_once_and_restarted_after_the_grace() -> None:
    watch = watched(well(is_stalled=True))
    ill = ailment(watch)
    assert ill is not None
    assert ill.state is WorkerState.STUCK
    assert restart_reason(watch, SETTINGS.stuck_grace_seconds - 0.1, SETTINGS) == ""
    assert restart_reason(watch, SETTINGS.stuck_grace_seconds, SETTINGS).startswith(
        "stuck: a batch"
    )


def test_the_grace_is_longer_than_systemds_own_watchdog_takes() -> None:
    assert SETTINGS.stuck_grace_seconds > 30


def test_a_worker_that_is_silent_is_stuck_and_one_that_promised_nothing_is_not() -> None:
    assert ailment(watched(well(silent_seconds=SILENT_SECONDS - 1))) is None
    assert ailment(watched(well(silent_seconds=None))) is None
    silent = watched(well(silent_seconds=SILENT_SECONDS))
    assert restart_reason(silent, 60, SETTINGS).startswith("stuck: nothing has been heard")


def test_a_batch_that_ends_after_all_ends_the_stuckness_and_its_grace() -> None:
    over = watched(well(is_stalled=True), well(), well(is_stalled=True), step_seconds=39)
    assert restart_reason(over, 39, SETTINGS) == ""


# --- memory and fragmentation


def heavy(used: int) -> Vitals:
    return well(memory_bytes=used, memory_soft_limit_bytes=100 << 20)


def test_a_worker_that_grew_over_its_soft_limit_is_recycled_once_it_stays_there() -> None:
    grown = watched(heavy(50 << 20), heavy(101 << 20))
    assert recycle_reason(grown, OVER_MEMORY_SECONDS - 0.1, SETTINGS) == ""
    reason = recycle_reason(grown, OVER_MEMORY_SECONDS, SETTINGS)
    assert reason == "memory: it holds 101 MiB of memory, over its soft limit of 100 MiB"
    assert needs_memory(grown, 1e9) == ""


def test_a_worker_that_needs_more_from_its_start_is_told_of_and_not_restarted_for_ever() -> None:
    born_so = watched(heavy(101 << 20), heavy(101 << 20))
    assert recycle_reason(born_so, 1e9, SETTINGS) == ""
    assert "over its soft limit" in needs_memory(born_so, OVER_MEMORY_SECONDS)


def test_a_peak_that_passes_is_none() -> None:
    watch = watched(heavy(50 << 20), heavy(101 << 20), heavy(50 << 20))
    assert recycle_reason(watch, 1e9, SETTINGS) == ""


def fragmented(share: float, reserved: int = 8 * GIBIBYTE) -> Vitals:
    return well(vram_reserved_bytes=reserved, vram_fragmentation=share)


def test_fragmentation_counts_when_it_is_large_and_lasts() -> None:
    watch = watched(fragmented(0.6))
    assert recycle_reason(watch, SETTINGS.fragmentation_seconds - 1, SETTINGS) == ""
    reason = recycle_reason(watch, SETTINGS.fragmentation_seconds, SETTINGS)
    assert reason == "fragmentation: 60% of its 8192 MiB on the card are reserved and not used"


@pytest.mark.parametrize("look", [fragmented(0.5), fragmented(0.9, GIBIBYTE), well()])
def test_little_fragmentation_or_fragmentation_of_little_is_none(look: Vitals) -> None:
    assert recycle_reason(watched(look), 1e9, SETTINGS) == ""


def test_what_the_front_door_could_not_free_is_a_reason_at_once_and_only_while_it_says_so() -> None:
    short = watched(well(), well(short_of_vram="it holds 95%"))
    assert recycle_reason(short, 0, SETTINGS) == "card memory: it holds 95%"
    relieved = next_watch(short, well(), 1.0, SETTINGS)
    assert recycle_reason(relieved, 1e9, SETTINGS) == ""
