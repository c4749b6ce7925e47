# SPDX-License-Identifier: Apache-2.0
"""Settings and events at the border to the driver, for what the simulator has not."""

from typing import Any

import pynvml
import pytest

from gpuwarden.nvml.control import CardControl, ClockRange
from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NoPermissionError, NvmlError
from gpuwarden.nvml.events import MOST_AT_ONCE, XID_EVENT, XidEvents
from gpuwarden.nvml.vocabulary import Architecture
from tests.unit.nvml.driver import LOST, NOT_SUPPORTED, UNKNOWN, Fails, StandInDriver
from tests.unit.nvml.driver import attach as attach_driver

NOT_LOADED, NO_PERMISSION, TIMEOUT = 9, 4, 10


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_driver(driver: StandInDriver) -> CardControl:
        attach_driver(driver, monkeypatch)
        return CardControl("card GPU-1", pynvml.c_nvmlDevice_t())

    return with_driver


def clocks(*mhz: int) -> Any:
    """A list in two calls: how many, and which."""

    def answer(*arguments: Any) -> Any:
        *_, count, listed = arguments
        count._obj.value = len(mhz)
        if listed is None:
            return Fails(7)
        listed[:] = mhz
        return None

    return answer


def test_a_limit_is_the_one_that_was_asked_for(attach: Any) -> None:
    asked: list[int] = []
    driver = StandInDriver(
        {
            "nvmlDeviceGetPowerManagementLimit": 300_500,
            "nvmlDeviceSetPowerManagementLimit": lambda handle, mw: asked.append(mw.value),
        }
    )
    assert attach(driver).set_power_limit(300_501) == 300_500
    assert asked == [300_501]


def test_a_driver_without_the_getter_has_a_field(attach: Any) -> None:
    driver = StandInDriver(
        {"nvmlDeviceGetPowerManagementLimit": Fails(NOT_SUPPORTED)}, {192: 70000}
    )
    assert attach(driver).power_limit_milliwatts() == 70_000


def test_a_card_without_a_limit_has_none(attach: Any) -> None:
    driver = StandInDriver({"nvmlDeviceGetPowerManagementLimit": Fails(NOT_SUPPORTED)}, {})
    with pytest.raises(NvmlError, match="not supported"):
        attach(driver).power_limit_milliwatts()


def test_a_setter_that_is_denied_says_what_it_needs(attach: Any) -> None:
    driver = StandInDriver({"nvmlDeviceSetGpuLockedClocks": Fails(NO_PERMISSION)})
    with pytest.raises(NoPermissionError, match="CAP_SYS_ADMIN"):
        attach(driver).lock_sm_clocks(300, 900)


def test_clocks_are_a_range_and_a_step(attach: Any) -> None:
    driver = StandInDriver(
        {
            "nvmlDeviceGetSupportedMemoryClocks": clocks(405, 5001, 810),
            "nvmlDeviceGetSupportedGraphicsClocks": clocks(1590, 1575, 1560, 300),
        }
    )
    control = attach(driver)
    assert control.sm_clocks() == ClockRange(300, 1590, 15)
    assert control.memory_clocks_mhz() == (5001, 810, 405)


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"nvmlDeviceGetSupportedMemoryClocks": clocks()},
        {"nvmlDeviceGetSupportedMemoryClocks": clocks(405)},
        {
            "nvmlDeviceGetSupportedMemoryClocks": clocks(405),
            "nvmlDeviceGetSupportedGraphicsClocks": clocks(),
        },
    ],
)
def test_a_card_that_does_not_list_its_clocks_has_no_range(
    attach: Any, answers: dict[str, Any]
) -> None:
    assert attach(StandInDriver(answers)).sm_clocks() is None


@pytest.mark.parametrize(
    ("asked", "clock"), [(1590, 1590), (2000, 1590), (1589, 1575), (300, 300), (10, 300)]
)
def test_a_clock_is_never_above_what_was_asked_for(asked: int, clock: int) -> None:
    assert ClockRange(300, 1590, 15).at_most(asked) == clock


def test_a_card_of_an_unknown_generation_may_be_a_new_one(attach: Any) -> None:
    assert attach(StandInDriver({})).is_at_least(Architecture.AMPERE)
    turing = StandInDriver({"nvmlDeviceGetArchitecture": int(Architecture.TURING)})
    assert attach(turing).is_at_least(Architecture.VOLTA)
    assert not attach(turing).is_at_least(Architecture.AMPERE)


class Events:
    """A driver's event set with so many XIDs in it."""

    def __init__(self, *xids: int) -> None:
        self.waiting: list[tuple[int, int]] = [(XID_EVENT, xid) for xid in xids]
        self.wait_fails: int | None = None
        self.driver = StandInDriver(
            {
                "nvmlDeviceGetSupportedEventTypes": 0x801F,
                "nvmlEventSetCreate": None,
                "nvmlDeviceRegisterEvents": self.register,
                "nvmlEventSetWait_v2": self.wait,
                "nvmlEventSetFree": None,
            }
        )
        self.registered: list[int] = []

    def register(self, handle: object, types: Any, events: object) -> None:
        self.registered.append(types.value)

    def wait(self, events: object, data: object, milliseconds: Any) -> Any:
        assert milliseconds.value == 0
        if self.waiting:
            kind, value = self.waiting.pop(0)
            return {"eventType": kind, "eventData": value}
        return Fails(TIMEOUT if self.wait_fails is None else self.wait_fails)

    def count(self, function: str) -> int:
        return self.driver.calls.count(function)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_events(events: Events) -> XidEvents:
        attach_driver(events.driver, monkeypatch)
        return XidEvents("card GPU-1", pynvml.c_nvmlDevice_t())

    return with_events


def test_events_are_drained_in_order_and_other_kinds_left_out(watch: Any) -> None:
    events = Events(13, 31)
    events.waiting.insert(1, (0x10, 5))
    xids = watch(events)
    assert xids.drain() == (13, 31)
    assert xids.drain() == ()
    assert events.registered == [XID_EVENT]


def test_a_card_that_reports_without_end_does_not_hold_the_thread(watch: Any) -> None:
    xids = watch(Events(*range(1, 100)))
    assert len(xids.drain()) == MOST_AT_ONCE
    assert len(xids.drain()) == MOST_AT_ONCE


@pytest.mark.parametrize("types", [0, 0x17])
def test_a_card_without_such_events_is_asked_once(watch: Any, types: int) -> None:
    events = Events()
    events.driver.answers["nvmlDeviceGetSupportedEventTypes"] = types & ~XID_EVENT
    xids = watch(events)
    assert xids.drain() == xids.drain() == ()
    assert events.count("nvmlDeviceGetSupportedEventTypes") == 1
    assert events.count("nvmlEventSetCreate") == 0


def test_an_old_driver_has_no_events(watch: Any) -> None:
    events = Events()
    del events.driver.answers["nvmlDeviceGetSupportedEventTypes"]
    xids = watch(events)
    assert xids.drain() == xids.drain() == ()


def test_a_set_that_fails_is_opened_anew(watch: Any, caplog: pytest.LogCaptureFixture) -> None:
    events = Events(13)
    events.wait_fails = UNKNOWN
    xids = watch(events)
    assert xids.drain() == (13,)
    assert xids.drain() == ()
    assert len(caplog.records) == 1, "told once"
    events.wait_fails = None
    events.waiting = [(XID_EVENT, 79)]
    assert xids.drain() == (79,)
    assert events.count("nvmlEventSetCreate") == events.count("nvmlEventSetFree") + 1


@pytest.mark.parametrize(
    ("code", "error"), [(LOST, CardLostError), (NOT_LOADED, DriverMissingError)]
)
def test_what_a_lost_card_said_last_is_told_before_it_is_lost(
    watch: Any, code: int, error: type[Exception]
) -> None:
    events = Events(79)
    events.wait_fails = code
    xids = watch(events)
    assert xids.drain() == (79,)
    with pytest.raises(error):
        xids.drain()
    xids.close()
