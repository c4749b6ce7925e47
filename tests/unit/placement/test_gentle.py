# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from dataclasses import fields
from pathlib import PurePosixPath

from pydantic import BaseModel

from gpuwarden.config import Configuration
from gpuwarden.control.states import PlanData
from gpuwarden.placement.dropins import unit_files, with_revisions
from gpuwarden.placement.gentle import Alive, choose_slices, dated, eased, spared
from gpuwarden.placement.launch import settings_of
from gpuwarden.placement.plan import Driver, make_plan
from gpuwarden.worker.settings import Settings
from tests.machines import card, machine

MACHINE = machine(nodes=2, cores_per_node=4, threads_per_core=1)
DROP_IN = PurePosixPath("medgemma-worker@0.service.d/50-placement.conf")
GIB = 2**30


def configured(**changes: object) -> Configuration:
    return Configuration.model_validate(changes)


def planned(configuration: Configuration) -> PlanData:
    plan = make_plan([card(0, 0), card(1, 1)], MACHINE, configuration, Driver("1", False))
    return with_revisions(plan, configuration, MACHINE)


def slices_of(plan: PlanData) -> list[str]:
    return [worker.slice for worker in plan.workers]


def installed(plan: PlanData, configuration: Configuration) -> dict[str, str]:
    return {str(path): text for path, text in unit_files(plan, configuration, MACHINE).items()}


BEFORE = configured()
AFTER = configured(placement={"housekeeping_cpus": "0-1"})


def test_a_first_plan_takes_the_cards_own_slices() -> None:
    chosen = choose_slices(planned(BEFORE), {}, Alive())
    assert slices_of(chosen) == ["medgemma-workers-gpu0.slice", "medgemma-workers-gpu1.slice"]


def test_a_slice_that_somebody_runs_in_keeps_its_cpus_and_the_plan_takes_another() -> None:
    former = choose_slices(planned(BEFORE), {}, Alive())
    alive = Alive({0: 5}, frozenset({"medgemma-workers-gpu0.slice"}))
    chosen = choose_slices(planned(AFTER), installed(former, BEFORE), alive)
    assert slices_of(chosen) == ["medgemma-workers-gpu0b.slice", "medgemma-workers-gpu1.slice"]
    files = unit_files(chosen, AFTER, MACHINE)
    kept = {PurePosixPath(p): text for p, text in installed(former, BEFORE).items()}
    done = spared(files, kept, former, chosen, alive)
    old_slice = PurePosixPath("medgemma-workers-gpu0.slice")
    assert done[old_slice] == kept[old_slice]
    assert "AllowedCPUs=2-3" in done[PurePosixPath("medgemma-workers-gpu0b.slice")]
    again = choose_slices(planned(AFTER), {str(p): t for p, t in done.items()}, alive)
    assert slices_of(again) == slices_of(chosen)


def test_a_slice_that_is_empty_is_used_again() -> None:
    former = choose_slices(planned(BEFORE), {}, Alive())
    chosen = choose_slices(planned(AFTER), installed(former, BEFORE), Alive())
    assert slices_of(chosen) == slices_of(former)


def test_the_slice_makes_no_revision() -> None:
    plan = planned(BEFORE)
    moved = [w.model_copy(update={"slice": "medgemma-workers-gpu0b.slice"}) for w in plan.workers]
    again = with_revisions(plan.model_copy(update={"workers": moved}), BEFORE, MACHINE)
    assert [w.revision for w in again.workers] == [w.revision for w in plan.workers]


def changed(value: object) -> object:
    """Another value of the same kind."""
    if isinstance(value, dict):
        return {**value, "more": 1}
    if isinstance(value, tuple):
        return (*value, "/more")
    if isinstance(value, str):
        return f"{value}-more"
    return 1 if value is None else not value if isinstance(value, bool) else value + 1  # type: ignore[operator]  # a number


def variations() -> Iterator[tuple[str, Configuration]]:
    """Every setting there is, changed by itself."""
    for section in Configuration.model_fields:
        settings = getattr(BEFORE, section)
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, BaseModel) or (value and isinstance(value, tuple | dict)):
                continue
            other = settings.model_copy(update={name: changed(value)})
            yield f"{section}.{name}", BEFORE.model_copy(update={section: other})


def test_every_setting_of_the_workers_makes_a_revision_and_others_do_not() -> None:
    revision = planned(BEFORE).workers[0].revision
    for changes in ({"max_batch": 3}, {"options": {"a": 1}}, {"memory_max_bytes": GIB}):
        assert planned(configured(workers=changes)).workers[0].revision != revision
    assert planned(configured(gateway={"queue_limit": 7})).workers[0].revision == revision


def test_no_setting_that_a_worker_is_told_can_be_left_out_of_its_revision() -> None:
    plan = planned(BEFORE)
    told, revision = settings_of(plan.workers[0], BEFORE), plan.workers[0].revision
    reached = set()
    for name, configuration in variations():
        again = with_revisions(plan, configuration, MACHINE).workers[0]
        is_told_otherwise = settings_of(plan.workers[0], configuration) != told
        assert again.revision != revision or not is_told_otherwise, name
        reached |= {name} if is_told_otherwise else set()
    assert {"workers.max_pixels", "workers.preprocess_memory_bytes", "log.level"} <= reached
    of_the_plan = {"number", "gpu_uuid", "gpu_index", "inference_priority", "dispatch_socket"}
    assert len(reached) == len(told.keys() - of_the_plan)


def test_a_worker_is_told_all_that_it_knows_of() -> None:
    assert settings_of(planned(BEFORE).workers[0], BEFORE).keys() == {
        entry.name
        for entry in fields(Settings)
        if entry.name not in ("simulator_socket", "scan_folder")  # places, the same on every node
    }


def test_a_revision_is_dated_when_it_changes_and_never_in_the_boots_first_plan() -> None:
    first = dated(planned(BEFORE), None, 100)
    assert [w.revised_monotonic_microseconds for w in first.workers] == [0, 0]
    same = dated(planned(BEFORE), first, 200)
    assert [w.revised_monotonic_microseconds for w in same.workers] == [0, 0]
    other = dated(planned(AFTER), first, 300)
    # Worker 1 loses nothing by the other housekeeping.
    assert [w.revised_monotonic_microseconds for w in other.workers] == [300, 0]


def test_a_running_worker_keeps_its_memory_and_its_devices_until_it_is_restarted() -> None:
    smaller = configured(workers={"memory_max_bytes": GIB})
    former = dated(choose_slices(planned(BEFORE), {}, Alive()), None, 0)
    kept = {PurePosixPath(p): text for p, text in installed(former, BEFORE).items()}
    alive = Alive({0: 50}, frozenset({"medgemma-workers-gpu0.slice"}))
    plan = choose_slices(planned(smaller), {str(p): t for p, t in kept.items()}, alive)
    files = unit_files(plan, smaller, MACHINE)

    done = spared(files, kept, former, plan, alive)
    assert f"MemoryMax={16 * GIB}\n" in done[DROP_IN]
    assert f"MemoryMax={GIB}\n" in files[DROP_IN]
    assert f"REVISION={plan.workers[0].revision}\n" in done[DROP_IN]
    assert f"MemoryMax={16 * GIB}\n" in done[PurePosixPath("medgemma-workers-gpu0.slice")]

    current = dated(plan, former, 100)
    restarted = Alive({0: 150}, alive.slices)
    assert spared(files, done, current, plan, restarted)[DROP_IN] == files[DROP_IN]
    not_yet = Alive({0: 50}, alive.slices)
    assert f"MemoryMax={16 * GIB}\n" in spared(files, done, current, plan, not_yet)[DROP_IN]


def test_a_worker_that_runs_and_is_planned_no_more_keeps_its_files() -> None:
    two = configured(workers={"workers_per_gpu": 2})
    former = choose_slices(planned(two), {}, Alive())
    kept = {PurePosixPath(p): text for p, text in installed(former, two).items()}
    plan = choose_slices(planned(BEFORE), {}, Alive())
    path = PurePosixPath("medgemma-worker@3.service.d/50-placement.conf")
    files = unit_files(plan, BEFORE, MACHINE)
    assert spared(files, kept, former, plan, Alive({3: 9}))[path] == kept[path]
    assert path not in spared(files, kept, former, plan, Alive())


def test_easing_allows_what_either_allows() -> None:
    new = "[Service]\nDeviceAllow=/dev/a rw\nMemoryMax=10\nTasksMax=90\n"
    old = "[Service]\nDeviceAllow=/dev/b rw\nDeviceAllow=/dev/a rw\nMemoryMax=20\nTasksMax=64\n"
    assert eased(new, old) == (
        "[Service]\nDeviceAllow=/dev/a rw\nDeviceAllow=/dev/b rw\nMemoryMax=20\nTasksMax=90\n"
    )


def test_a_server_that_runs_stays_reachable_until_it_is_restarted() -> None:
    old = "[Service]\nIPAddressAllow=localhost\n"
    assert eased("[Service]\n", old) == old
    assert eased(old, old) == old
