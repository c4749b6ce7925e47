# SPDX-License-Identifier: Apache-2.0
# Every method that changes something: who may have it done, what is done then, what is refused.

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import Busy, Failed, InvalidArgument, NoSuchWorker
from gpuwarden.bus.library import Variant
from gpuwarden.bus.objects.log_control import LOG_CONTROL, exported_log_control
from gpuwarden.bus.objects.publisher import GATEWAY_OBJECT, INTERFACES, Commands, Publisher
from gpuwarden.bus.standard import PROPERTIES
from gpuwarden.control.requests import ReloadAnswer
from gpuwarden.guard.logs import LEVELS, GuardLog
from gpuwarden.guard.permission import Permission
from gpuwarden.guard.reload import Reloading, check_complete
from gpuwarden.names import (
    BUS_NAME,
    LOG_CONTROL_OBJECT,
    ROOT_OBJECT,
    gpu_object,
    worker_object,
)
from tests.integration.authority import polkit, polkit_bus_policy
from tests.integration.bus_peers import client
from tests.integration.bus_states import FixedSource, state
from tests.integration.private_bus import MEMBER, OTHER, PrivateBus, private_bus, shipped_policy
from tests.integration.recording_commands import Recording

MANAGER = f"{BUS_NAME}.Manager"
WORKER = f"{BUS_NAME}.Worker"
THERMAL = f"{BUS_NAME}.Thermal"
GATEWAY = f"{BUS_NAME}.Gateway"
DENIED = "Error org.freedesktop.DBus.Error.AccessDenied: "
# Object, interface, member, arguments, and what is done then.
ORDERS: list[tuple[str, str, str, tuple[object, ...], tuple[object, ...]]] = [
    (ROOT_OBJECT, MANAGER, "StartWorker", (1,), ("start", 1)),
    (ROOT_OBJECT, MANAGER, "StopWorker", (1,), ("stop", 1)),
    (ROOT_OBJECT, MANAGER, "RestartWorker", (1,), ("restart", 1)),
    (ROOT_OBJECT, MANAGER, "DrainWorker", (1,), ("drain", 1)),
    (ROOT_OBJECT, MANAGER, "RollingRestart", (), ("rolling restart",)),
    (ROOT_OBJECT, MANAGER, "ReapOrphan", (4242,), ("reap", 4242)),
    (ROOT_OBJECT, MANAGER, "Reload", (), ("reload",)),
    (worker_object(1), WORKER, "Start", (), ("start", 1)),
    (worker_object(1), WORKER, "Stop", (), ("stop", 1)),
    (worker_object(1), WORKER, "Restart", (), ("restart", 1)),
    (worker_object(1), WORKER, "Drain", (), ("drain", 1)),
    (gpu_object(1), THERMAL, "Override", ("alert", 60), ("override", 1, "alert", 60)),
    (gpu_object(1), THERMAL, "ClearOverride", (), ("clear override", 1)),
    (gpu_object(1), THERMAL, "Release", (60,), ("release", 1, 60)),
    (GATEWAY_OBJECT, GATEWAY, "Pause", (60,), ("pause", 60)),
    (GATEWAY_OBJECT, GATEWAY, "Resume", (), ("resume",)),
]


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus([polkit_bus_policy(), shipped_policy()]) as running:
        yield running


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
async def caller(bus: PrivateBus, recording: Recording) -> AsyncIterator[Bus]:
    """A client of a service that does nothing but take orders down."""
    serving = Bus(bus.address)
    serving.authorize_by(Permission(serving).authorize)
    publisher = Publisher(serving, FixedSource(state()), Commands(recording, recording, recording))
    serving.objects.export(LOG_CONTROL_OBJECT, [exported_log_control(GuardLog())])
    level = logging.getLogger().level
    await serving.connect()
    await serving.own_name(BUS_NAME)
    async with client(bus) as connection:
        yield connection
    publisher.close()
    await serving.close()
    logging.getLogger().setLevel(level)


def signature(interface: str, member: str) -> str:
    by_name = {each.name: each for each in INTERFACES}
    return by_name[interface].method(member).input_signature


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """The fields of each change that the journal tells of."""
    fields = [getattr(each, "fields", {}) for each in caplog.records]
    return [each for each in fields if each.get("GPUWARDEN_EVENT", "").startswith("change-")]


def dbus_send(bus: PrivateBus, path: str, member: str, *arguments: object) -> tuple[str, ...]:
    words = [f"uint32:{a}" if isinstance(a, int) else f"string:{a}" for a in arguments]
    head = ("dbus-send", f"--bus={bus.address}", "--print-reply", f"--dest={BUS_NAME}")
    return (*head, path, member, *words)


def test_no_method_that_acts_is_left_out() -> None:
    acting = {(each.name, m.name) for each in INTERFACES for m in each.methods if m.action}
    assert {(interface, member) for _, interface, member, *_ in ORDERS} == acting


async def test_root_has_each_done_and_the_journal_names_who_asked(
    caller: Bus, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger().setLevel(logging.CRITICAL)  # not even so does anybody act unseen
    for path, interface, member, arguments, done in ORDERS:
        answer = await caller.call(
            BUS_NAME, path, interface, member, signature(interface, member), list(arguments)
        )
        assert answer == ([2**33] if member == "ReapOrphan" else [])
        assert recording.done.pop() == done
        fields = told(caplog)[-1]
        assert fields["GPUWARDEN_EVENT"] == "change-granted"
        assert fields["OBJECT"] == path
        assert fields["METHOD"].startswith(f"{interface.rpartition('.')[2]}.{member}(")
        assert fields["CALLER_UID"] == "0"
        assert int(fields["CALLER_PID"]) > 0
        assert "CALLER_UNIT" in fields
    assert len(told(caplog)) == len(ORDERS)
    assert recording.done == []


async def test_a_member_is_refused_each_and_nobody_else_even_reaches_us(
    bus: PrivateBus, caller: Bus, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    async with polkit(bus):
        for path, interface, member, arguments, _ in ORDERS:
            send = dbus_send(bus, path, f"{interface}.{member}", *arguments)
            _, output = await bus.run(MEMBER, *send)
            assert output.startswith(DENIED), output
            assert "needs an administrator's password" in output
            fields = told(caplog)[-1]
            assert fields["GPUWARDEN_EVENT"] == "change-denied"
            assert fields["CALLER_UID"] == str(MEMBER.uid)
            count = len(told(caplog))
            assert DENIED in (await bus.run(OTHER, *send))[1]
            assert len(told(caplog)) == count
    assert recording.done == []


async def test_a_refusal_arrives_with_its_name_and_words(caller: Bus, recording: Recording) -> None:
    for recording.refusal in (
        NoSuchWorker("there is no worker 7"),
        Busy("worker 1 is being restarted"),
        InvalidArgument("PID 1 is not one of the orphans"),
    ):
        for path, interface, member, arguments, _ in ORDERS:
            types = signature(interface, member)
            with pytest.raises(type(recording.refusal), match=recording.refusal.text):
                await caller.call(BUS_NAME, path, interface, member, types, list(arguments))
    assert recording.done == []


@pytest.mark.parametrize("wrong", ["", "s", "i", "t", "v", "uu", "au", "(u)", "us"])
async def test_wrong_types_are_refused_before_anybody_is_asked(
    caller: Bus, recording: Recording, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    bodies: dict[str, list[Any]] = {
        **{"": [], "s": ["1"], "i": [-1], "t": [2**40], "v": [Variant("u", 1)]},
        **{"uu": [1, 1], "au": [[1]], "(u)": [[1]], "us": [1, "alert"]},
    }
    for path, interface, member, *_ in ORDERS:
        if signature(interface, member) == wrong:
            continue
        with pytest.raises(Exception, match=r"takes \"") as caught:
            await caller.call(BUS_NAME, path, interface, member, wrong, bodies[wrong])
        assert getattr(caught.value, "name", "") == "org.freedesktop.DBus.Error.InvalidArgs"
    assert (recording.done, told(caplog)) == ([], [])


# The log


async def set_log(caller: Bus, name: str, value: Variant) -> None:
    body = [LOG_CONTROL.name, name, value]
    await caller.call(BUS_NAME, LOG_CONTROL_OBJECT, PROPERTIES.name, "Set", "ssv", body)


async def get_log(caller: Bus, name: str) -> object:
    body = [LOG_CONTROL.name, name]
    answer = await caller.call(BUS_NAME, LOG_CONTROL_OBJECT, PROPERTIES.name, "Get", "ss", body)
    return answer[0]


async def test_root_sets_the_log_level_as_systemctl_does(
    caller: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    for level in LEVELS:
        await set_log(caller, "LogLevel", Variant("s", level))
        assert await get_log(caller, "LogLevel") == level
        assert logging.getLogger().level == LEVELS[level]
        assert (
            told(caplog)[-1]["METHOD"] == f"Properties.Set({LOG_CONTROL.name}, LogLevel, {level})"
        )
    assert await get_log(caller, "SyslogIdentifier") == "gpuwarden"
    assert await get_log(caller, "LogTarget") == "console"  # there is no journal in a test
    await set_log(caller, "LogTarget", Variant("s", "journal"))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("LogLevel", Variant("s", "loud"), f"{BUS_NAME}.Error.InvalidArgument"),
        ("LogLevel", Variant("s", "../../etc"), f"{BUS_NAME}.Error.InvalidArgument"),
        ("LogLevel", Variant("u", 7), "org.freedesktop.DBus.Error.InvalidArgs"),
        ("LogLevel", Variant("v", Variant("s", "info")), "org.freedesktop.DBus.Error.InvalidArgs"),
        ("LogTarget", Variant("s", "kmsg"), f"{BUS_NAME}.Error.InvalidArgument"),
        ("SyslogIdentifier", Variant("s", "x"), "org.freedesktop.DBus.Error.PropertyReadOnly"),
        ("Nonsense", Variant("s", "x"), "org.freedesktop.DBus.Error.UnknownProperty"),
    ],
)
async def test_what_the_log_can_not_be_set_to_is_named(
    caller: Bus, name: str, value: Variant, error: str
) -> None:
    before = logging.getLogger().level
    with pytest.raises(Exception, match=r".") as caught:
        await set_log(caller, name, value)
    assert getattr(caught.value, "name", "") == error
    assert logging.getLogger().level == before


async def test_a_member_reads_the_log_level_and_does_not_set_it(
    bus: PrivateBus, caller: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.getLogger().level
    where = (BUS_NAME, LOG_CONTROL_OBJECT, LOG_CONTROL.name, "LogLevel")
    assert (await bus.busctl(MEMBER, "get-property", *where))[0] == 0
    status, output = await bus.busctl(MEMBER, "set-property", *where, "s", "debug")
    assert (status, "Access denied" in output) == (1, True)
    assert told(caplog)[-1]["GPUWARDEN_EVENT"] == "change-denied"
    assert logging.getLogger().level == before
    assert (await bus.busctl(OTHER, "get-property", *where))[0] == 1


# A reload


async def test_one_reload_at_a_time() -> None:
    go_on = asyncio.Event()

    async def work() -> ReloadAnswer:
        await go_on.wait()
        return ReloadAnswer(applied=["guard"])

    reloading = Reloading(work)
    first = asyncio.create_task(reloading.reload())
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="under way"):
        await reloading.reload()
    go_on.set()
    assert (await first).applied == ["guard"]
    assert (await reloading.reload()).applied == ["guard"]


def test_what_a_reload_came_to_is_said_in_one_line() -> None:
    check_complete(ReloadAnswer(applied=["guard"], restart=[0]))
    problems = [f"gpuwarden.toml:{line}: [log] levle: unknown key" for line in range(30)]
    with pytest.raises(Failed) as caught:
        check_complete(ReloadAnswer(problems=problems))
    assert caught.value.text.startswith("gpuwarden.toml:0: [log] levle: unknown key; ")
    assert "10 more (gpuwarden config check)" in caught.value.text
    assert "nothing was changed" in caught.value.text
    with pytest.raises(Failed, match=r"^thermal@1 keeps its old settings: alert 99 C\\nno$"):
        check_complete(ReloadAnswer(applied=["guard"], kept={"thermal@1": "alert 99 C\nno"}))
