# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.nvml import calls
from gpuwarden.nvml.errors import CardLostError, DriverMissingError
from gpuwarden.nvml.library import DRIVER_LIBRARY, Library, Session, choose_library
from tests.unit.nvml.driver import LOST, UNKNOWN, Fails, StandInDriver, attach

NAMED = {"GPUWARDEN_NVML_LIBRARY": "/usr/lib/gpuwarden-simulator/libnvidia-ml.so.1"}


def test_without_a_wish_it_is_the_drivers_library(tmp_path: Path) -> None:
    assert choose_library({}, tmp_path / "version") == Library(DRIVER_LIBRARY, simulated=False)


def test_the_simulator_speaks_where_there_is_no_driver(tmp_path: Path) -> None:
    library = choose_library(NAMED, tmp_path / "version")
    assert library.simulated
    assert library.path == NAMED["GPUWARDEN_NVML_LIBRARY"]


def test_the_simulator_is_ignored_beside_a_real_driver(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("NVRM version: 580.159.04\n")
    library = choose_library(NAMED, tmp_path / "version")
    assert not library.simulated
    assert library.path == DRIVER_LIBRARY
    assert "is ignored" in library.note


def test_a_library_that_is_not_there_means_no_driver(tmp_path: Path) -> None:
    with pytest.raises(DriverMissingError, match=r"absent\.so.*install the NVIDIA driver"):
        Session(Library(str(tmp_path / "absent.so"), simulated=True))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_driver(**answers: Any) -> Session:
        attach(StandInDriver({"nvmlShutdown": None, **answers}), monkeypatch)
        return Session(Library("stand-in", simulated=False))

    return with_driver


def test_a_node_without_cards_is_no_error_at_the_start(session: Any) -> None:
    flags: list[int] = []
    session(nvmlInitWithFlags=flags.append)
    assert flags == [calls.NO_GPUS]


def test_a_driver_that_knows_no_flags_starts_without(session: Any) -> None:
    flags: list[int] = []

    def start(value: int) -> Fails | None:
        flags.append(value)
        return Fails(2) if value else None

    session(nvmlInitWithFlags=start)
    assert flags == [calls.NO_GPUS, 0]


def test_a_driver_that_is_not_loaded_is_missing(session: Any) -> None:
    with pytest.raises(DriverMissingError, match="modprobe nvidia"):
        session(nvmlInitWithFlags=Fails(9))


def test_a_card_that_does_not_answer_is_a_fault_beside_the_others(session: Any) -> None:
    open_session = session(
        nvmlInitWithFlags=None,
        nvmlDeviceGetCount_v2=2,
        nvmlDeviceGetHandleByIndex_v2=lambda index, out: Fails(LOST) if index.value == 0 else None,
        nvmlDeviceGetPciInfo_v3={"busId": b"00000000:3B:00.0"},
        nvmlDeviceGetMinorNumber=1,
        nvmlDeviceGetIndex=1,
        nvmlDeviceGetUUID="GPU-1",
        nvmlDeviceGetName="NVIDIA H200",
    )
    enumeration = open_session.cards()
    assert [card.uuid for card in enumeration.cards] == ["GPU-1"]
    assert "card 0" in enumeration.faults[0]


def test_a_card_is_looked_for_at_its_address_alone(session: Any) -> None:
    asked: list[bytes] = []
    session(
        nvmlInitWithFlags=None,
        nvmlDeviceGetHandleByPciBusId_v2=lambda address, out: asked.append(address.value),
        nvmlDeviceGetUUID="GPU-1",
    ).open_card("GPU-1", "0000:3b:00.0")
    assert asked == [b"0000:3b:00.0"]


def test_a_card_that_moved_is_found_by_its_uuid(session: Any) -> None:
    asked: list[bytes] = []
    session(
        nvmlInitWithFlags=None,
        nvmlDeviceGetHandleByPciBusId_v2=None,
        nvmlDeviceGetUUID="GPU-2",
        nvmlDeviceGetHandleByUUID=lambda uuid, out: asked.append(uuid.value),
    ).open_card("GPU-1", "0000:3b:00.0")
    assert asked == [b"GPU-1"]


@pytest.mark.parametrize("code", [6, LOST, UNKNOWN])
def test_a_card_that_is_not_there_is_lost(session: Any, code: int) -> None:
    open_session = session(nvmlInitWithFlags=None, nvmlDeviceGetHandleByUUID=Fails(code))
    with pytest.raises(CardLostError, match="GPU-1"):
        open_session.open_card("GPU-1")
