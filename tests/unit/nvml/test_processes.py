# SPDX-License-Identifier: Apache-2.0
"""The lists of processes: several versions, odd answers, divided cards."""

from collections.abc import Callable
from typing import Any

import pytest

from gpuwarden.nvml.errors import CardLostError, NotSupportedError
from gpuwarden.nvml.processes import COMPUTE, GRAPHICS, MPS, CardProcess, ProcessLister
from tests.unit.nvml.driver import LOST, NOT_SUPPORTED, Fails, StandInDriver, attach

COMPUTE_V3 = "nvmlDeviceGetComputeRunningProcesses_v3"
COMPUTE_V2 = "nvmlDeviceGetComputeRunningProcesses_v2"
GRAPHICS_V3 = "nvmlDeviceGetGraphicsRunningProcesses_v3"
MPS_V3 = "nvmlDeviceGetMPSComputeRunningProcesses_v3"
MEMORY = "nvmlDeviceGetMemoryInfo_v2"
NO_PERMISSION, INSUFFICIENT_SIZE = 4, 7
UNKNOWN_SIZE = 2**64 - 1
HANDLE, INSTANCE_A, INSTANCE_B = 1, 2, 3

Listing = Callable[[Any, Any, Any], Any]


def listing(*processes: tuple[int, int]) -> Listing:
    """The driver's answer: first how many, then who."""

    def answer(handle: Any, count: Any, entries: Any) -> Any:
        room = count._obj.value if entries is not None else 0
        count._obj.value = len(processes)
        if len(processes) > room:
            return Fails(INSUFFICIENT_SIZE)
        for entry, (pid, size) in zip(entries or (), processes, strict=False):
            entry.pid, entry.usedGpuMemory = pid, size
        return None

    return answer


def lister(
    answers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    *instances: int,
    version: str = "580",
) -> ProcessLister:
    memory = {MEMORY: {"used": 3000, "total": 9000, "reserved": 500}}
    attach(StandInDriver(memory | answers), monkeypatch)
    return ProcessLister("card GPU-0", HANDLE, instances, version)


def process(pid: int, size: int | None, *kinds: str) -> CardProcess:
    return CardProcess(pid, size, frozenset(kinds))


def test_a_process_in_several_lists_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        COMPUTE_V3: listing((10, 1000), (11, 500)),
        GRAPHICS_V3: listing((12, 20), (11, 500)),
        MPS_V3: listing((10, 1000)),
    }
    use = lister(answers, monkeypatch).look()
    assert use.processes == (
        process(10, 1000, COMPUTE, MPS),
        process(11, 500, COMPUTE, GRAPHICS),
        process(12, 20, GRAPHICS),
    )
    assert (use.used_bytes, use.total_bytes, use.problem) == (3000, 9000, "")


def test_memory_that_the_driver_cannot_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    use = lister({COMPUTE_V3: listing((10, UNKNOWN_SIZE))}, monkeypatch).look()
    assert use.processes == (process(10, None, COMPUTE),)


def test_processes_that_come_between_two_questions_are_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def growing(handle: Any, count: Any, entries: Any) -> Any:
        calls.append(entries)
        if len(calls) < 4:
            count._obj.value = 50 * len(calls)
            return Fails(INSUFFICIENT_SIZE)
        return listing((10, 1))(handle, count, entries)

    assert lister({COMPUTE_V3: growing}, monkeypatch).look().processes == (process(10, 1, COMPUTE),)
    assert len(calls) == 4


def test_an_older_driver_is_asked_by_the_older_call(monkeypatch: pytest.MonkeyPatch) -> None:
    use = lister({COMPUTE_V2: listing((10, 7))}, monkeypatch).look()
    assert use.processes == (process(10, 7, COMPUTE),)


@pytest.mark.parametrize(
    ("version", "wanted"), [("535.86.05", 2), ("535.98", 3), ("535.183.01", 3), ("odd", 3)]
)
def test_releases_that_fill_the_structure_wrongly_are_asked_by_the_older_call(
    monkeypatch: pytest.MonkeyPatch, version: str, wanted: int
) -> None:
    answers = {COMPUTE_V3: listing((3, 3)), COMPUTE_V2: listing((2, 2))}
    (found,) = lister(answers, monkeypatch, version=version).look().processes
    assert found.pid == wanted


def test_a_card_that_lists_nobody_at_all_is_no_empty_card(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotSupportedError, match="lists no processes"):
        lister({COMPUTE_V3: Fails(NOT_SUPPORTED)}, monkeypatch).look()


def test_a_lost_card_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CardLostError):
        lister({COMPUTE_V3: Fails(LOST)}, monkeypatch).look()


def test_without_permission_a_list_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    use = lister({COMPUTE_V3: Fails(NO_PERMISSION)}, monkeypatch).look()
    assert use.processes == ()
    assert "permission denied" in use.problem


def by_handle(answers: dict[int, Any]) -> Listing:
    def answer(handle: Any, count: Any, entries: Any) -> Any:
        found = answers[handle]
        return found if isinstance(found, Fails) else found(handle, count, entries)

    return answer


def test_a_divided_card_is_asked_instance_by_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        HANDLE: Fails(NO_PERMISSION),
        INSTANCE_A: listing((10, 100), (11, 1)),
        INSTANCE_B: listing((10, 200)),
    }
    use = lister({COMPUTE_V3: by_handle(answers)}, monkeypatch, INSTANCE_A, INSTANCE_B).look()
    assert use.processes == (process(10, 300, COMPUTE), process(11, 1, COMPUTE))
    assert use.problem == ""


def test_memory_that_cannot_be_told_apart_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {MEMORY: Fails(NOT_SUPPORTED), COMPUTE_V3: listing((10, 7))}
    use = lister(answers, monkeypatch).look()
    assert (use.used_bytes, use.total_bytes) == (None, None)
    assert len(use.processes) == 1


def test_memory_is_the_least_that_was_in_use_round_the_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = iter((3000, 9000))
    answers = {MEMORY: lambda *_: {"used": next(sizes), "total": 9000}, COMPUTE_V3: listing()}
    assert lister(answers, monkeypatch).look().used_bytes == 3000
