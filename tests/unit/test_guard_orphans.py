# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.control.states import Holder, HolderClass, ScanData
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.guard.orphans import (
    REAP_APART_SECONDS,
    REAP_SCANS,
    TELL_SCANS,
    Key,
    NotToBeReapedError,
    Sighting,
    chosen,
    left_by,
    next_sightings,
    orphans,
    to_reap,
    to_tell,
)
from gpuwarden.guard.processes import Identity, Process
from gpuwarden.guard.reaper import is_left_over

CLASSES: list[HolderClass] = [
    "ours",
    "ours-dead",
    "container",
    "desktop",
    "mps",
    "monitoring",
    "defunct",
    "uninterruptible",
    "hidden",
    "foreign",
]
NOW_MICROSECONDS = 1_700_000_000_000_000
GPU = 0


def holder(pid: int = 4000, holder_class: HolderClass = "ours-dead", **changes: object) -> Holder:
    fields: dict[str, object] = {
        "pid": pid,
        "start_time_ticks": 77,
        "holder_class": holder_class,
        "command": "python3",
        "uid": 990,
        "unit": "",
        "control_group": "/",
        "worker": 0 if holder_class in ("ours", "ours-dead") else None,
        "vram_bytes": 2**30,
    }
    return Holder.model_validate(fields | changes)


def scan(*holders: Holder, **changes: object) -> ScanData:
    fields: dict[str, object] = {
        "gpu_index": GPU,
        "gpu_uuid": "GPU-0",
        "state": "scanning",
        "scans": 1,
        "holders": list(holders),
    }
    return ScanData.model_validate(fields | changes)


class Looks:
    """Looks at one card's scans, one after the other."""

    def __init__(self) -> None:
        self.sightings: dict[Key, Sighting] = {}
        self.number = 0

    def at(self, seconds: float, data: ScanData | None, scanner: int = 7) -> "Looks":
        self.number += 1
        return self.again(seconds, data, scanner)

    def again(self, seconds: float, data: ScanData | None, scanner: int = 7) -> "Looks":
        """The same scan."""
        self.sightings = next_sightings(
            self.sightings, GPU, data, (scanner, self.number), seconds, NOW_MICROSECONDS
        )
        return self

    @property
    def reaped(self) -> list[int]:
        return [each.holder.pid for each in to_reap(self.sightings)]


def seen_dead(until_seconds: int, every_seconds: int = 5) -> Looks:
    looks = Looks()
    for second in range(0, until_seconds + 1, every_seconds):
        looks.at(second, scan(holder()))
    return looks


# --- reaping by itself


def test_what_a_dead_worker_left_is_reaped_after_three_scans_thirty_seconds_apart() -> None:
    assert seen_dead(55).reaped == []
    assert seen_dead(60).reaped == [4000]


def test_three_scans_within_a_minute_are_not_enough() -> None:
    assert seen_dead(59, every_seconds=1).reaped == []


def test_one_scan_looked_at_for_ever_is_one_scan() -> None:
    looks = Looks().at(0, scan(holder()))
    for second in range(1, 1000):
        looks.again(second, scan(holder()))
    assert looks.reaped == []


@pytest.mark.parametrize("kind", [each for each in CLASSES if each != "ours-dead"])
def test_nobody_else_is_ever_reaped_by_itself(kind: HolderClass) -> None:
    looks = Looks()
    for second in range(0, 1000, 5):
        looks.at(second, scan(holder(holder_class=kind)))
    assert looks.reaped == []


@pytest.mark.parametrize(
    "doubt",
    [
        None,
        scan(problem="no permission"),
        scan(holder(), problem="no permission"),
        scan(holder(), state="blind"),
        scan(holder(), state="released"),
    ],
    ids=["stale", "incomplete", "incomplete, seen", "blind", "released"],
)
def test_a_scan_that_proves_nothing_reaps_nobody_and_takes_nothing_back(
    doubt: ScanData | None,
) -> None:
    looks = seen_dead(55).at(60, doubt).at(65, doubt)
    assert looks.reaped == []
    assert looks.at(70, scan(holder())).reaped == [4000]


@pytest.mark.parametrize(
    "contradiction",
    [
        scan(),
        scan(holder(start_time_ticks=78)),
        scan(holder(holder_class="foreign")),
        scan(holder(holder_class="foreign"), problem="no permission"),
        scan(holder(holder_class="ours")),
        scan(holder(holder_class="ours"), problem="no permission"),
    ],
    ids=[
        "not there",
        "another of that number",
        "judged otherwise",
        "incomplete, judged otherwise",
        "alive again",
        "incomplete, alive again",
    ],
)
def test_a_scan_that_says_otherwise_begins_the_count_anew(contradiction: ScanData) -> None:
    looks = seen_dead(55).at(58, contradiction).at(60, scan(holder()))
    assert looks.reaped == []
    assert looks.at(119, scan(holder())).reaped == []
    assert looks.at(120, scan(holder())).at(150, scan(holder())).reaped == [4000]


moments = st.tuples(
    st.floats(0.1, 40),
    st.one_of(
        st.none(),
        st.builds(
            lambda kind, start, problem, there: scan(
                *[holder(holder_class=kind, start_time_ticks=start)] * there, problem=problem
            ),
            st.sampled_from(["ours-dead", "ours-dead", "ours-dead", "foreign", "ours"]),
            st.sampled_from([77, 77, 77, 78]),
            st.sampled_from(["", "", "", "no permission"]),
            st.sampled_from([True, True, True, False]),
        ),
    ),
)


@given(st.lists(moments, max_size=40))
def test_law_who_is_reaped_was_seen_dead_for_a_minute_and_never_otherwise(
    history: list[tuple[float, ScanData | None]],
) -> None:
    looks, now, told = Looks(), 0.0, []
    for step, data in history:
        now += step
        looks.at(now, data)
        told.append((now, data))
        for each in to_reap(looks.sightings):
            identity = (each.holder.pid, each.holder.start_time_ticks)
            row = 0.0
            first = now
            scans = 0
            for when, seen in reversed(told):
                classes = [
                    one.holder_class
                    for one in (seen.holders if seen else [])
                    if (one.pid, one.start_time_ticks) == identity
                ]
                if seen is None or (seen.problem and classes in ([], ["ours-dead"])):
                    continue
                if classes != ["ours-dead"]:
                    break
                first, scans = when, scans + 1
            row = now - first
            assert scans >= REAP_SCANS
            assert row >= (REAP_SCANS - 1) * REAP_APART_SECONDS - 1e-6


# --- the list


@pytest.mark.parametrize("kind", CLASSES)
def test_everybody_is_listed_but_our_own_and_the_drivers_services(kind: HolderClass) -> None:
    looks = Looks().at(0, scan(holder(holder_class=kind)))
    listed = [each.orphan_class for each in orphans(looks.sightings.values())]
    assert listed == ([] if kind in ("ours", "mps", "monitoring") else [kind])


def test_the_list_says_since_when_and_in_how_many_scans() -> None:
    (orphan,) = orphans(seen_dead(20).sightings.values())
    assert (orphan.since, orphan.scans_seen, orphan.vram_bytes) == (NOW_MICROSECONDS, 5, 2**30)


def test_who_can_not_be_seen_now_is_not_listed_and_not_new_when_seen_again() -> None:
    looks = Looks()
    for second in range(TELL_SCANS):
        looks.at(second, scan(holder()))
    (sighting,) = to_tell(looks.sightings)
    looks.sightings = {key: replace(each, is_told=True) for key, each in looks.sightings.items()}
    assert sighting.holder.pid == 4000
    looks.at(5, None)
    assert orphans(looks.sightings.values()) == []
    looks.at(6, scan(holder())).at(7, scan(holder()))
    assert len(orphans(looks.sightings.values())) == 1
    assert to_tell(looks.sightings) == []


def test_who_is_gone_by_the_next_scan_is_no_news() -> None:
    looks = Looks().at(0, scan(holder(holder_class="container")))
    assert to_tell(looks.sightings) == []
    assert to_tell(looks.at(5, scan()).sightings) == []


def test_other_cards_sightings_are_left_alone() -> None:
    looks = Looks().at(0, scan(holder()))
    assert next_sightings(looks.sightings, 1, scan(), (9, 1), 1, NOW_MICROSECONDS) == {}


def test_what_a_worker_left_is_its_own_alone_alive_at_the_scan_or_not() -> None:
    data = scan(
        holder(1, "ours"),
        holder(2, "ours-dead"),
        holder(3, "ours", worker=1),
        holder(4, "foreign", worker=0),
    )
    assert [each.pid for each in left_by(data, 0)] == [1, 2]


# --- on request


def choose(pid: int, *holders: Holder, doubts: dict[int, str] | None = None) -> int:
    looks = Looks().at(0, scan(*holders))
    listed = [each.pid for each in orphans(looks.sightings.values())]
    return chosen(pid, {GPU: scan(*holders)}, doubts or {GPU: ""}, listed).holder.pid


@pytest.mark.parametrize("kind", ["ours-dead", "container", "desktop", "hidden", "foreign"])
def test_an_orphan_of_any_killable_class_is_reaped_on_request(kind: HolderClass) -> None:
    assert choose(4000, holder(holder_class=kind)) == 4000


@pytest.mark.parametrize(
    ("holders", "why"),
    [
        ([], "holds no memory of a card"),
        ([holder(holder_class="ours", unit="medgemma-worker@0.service")], "which runs"),
        ([holder(holder_class="foreign", unit="medgemma-thermal@0.service")], "which runs"),
        ([holder(holder_class="mps")], "service of the driver's"),
        ([holder(holder_class="monitoring")], "service of the driver's"),
        ([holder(holder_class="defunct")], "can't be killed: it is dead already"),
        ([holder(holder_class="uninterruptible")], "can't be killed: it hangs"),
    ],
)
def test_anybody_else_is_refused_and_told_why(holders: list[Holder], why: str) -> None:
    with pytest.raises(NotToBeReapedError, match=why) as refused:
        choose(4000, *holders)
    assert not refused.value.is_unknown


def test_a_process_on_a_card_that_is_not_known_is_refused_as_unknown() -> None:
    with pytest.raises(NotToBeReapedError, match="GPU 0: blind") as refused:
        choose(4000, doubts={GPU: "blind"})
    assert refused.value.is_unknown


# --- the second look

UNIT_GROUP = "/medgemma.slice/medgemma-worker@0.service"


def facts(active_state: str, main_pid: int = 0, control_group: str = UNIT_GROUP) -> UnitFacts:
    return UnitFacts(
        active_state=active_state, main_pid=main_pid, control_group=control_group, has_job=False
    )


def process(pid: int = 4000, group: str = "/user.slice", state: str = "S") -> Process:
    return Process(Identity(pid, 77), state, is_kernel_thread=False, control_group=group)


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_what_is_left_of_a_unit_that_is_down_is_left_over(state: str) -> None:
    assert is_left_over(process(group=UNIT_GROUP), facts(state, control_group=""))


@pytest.mark.parametrize("state", ["active", "activating", "reloading"])
def test_beside_a_living_unit_only_what_is_outside_its_group_is(state: str) -> None:
    assert is_left_over(process(), facts(state, main_pid=5000))
    assert not is_left_over(process(group=UNIT_GROUP), facts(state, main_pid=5000))
    assert not is_left_over(process(group=f"{UNIT_GROUP}/x"), facts(state, main_pid=5000))
    assert not is_left_over(process(5000), facts(state, main_pid=5000))


@pytest.mark.parametrize(
    ("found", "unit"),
    [
        (process(), facts("deactivating", 5000)),
        (process(), facts("active", 5000, control_group="")),
        (process(state="Z"), facts("inactive")),
        (Process(Identity(4000, 77), "S", True, "/"), facts("inactive")),
        (process(1), facts("inactive")),
    ],
    ids=["being stopped", "unknown group", "dead", "kernel", "init"],
)
def test_in_doubt_it_is_not(found: Process, unit: UnitFacts) -> None:
    assert not is_left_over(found, unit)
