# SPDX-License-Identifier: Apache-2.0
# Each known defect of dbus-next 0.2.3, shown on the stock library and gone in ours.

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import (
    AccessDenied,
    BusError,
    CallTimeout,
    Failed,
    InvalidArgs,
    PropertyReadOnly,
    RemoteError,
    Unavailable,
    UnknownInterface,
    UnknownMethod,
    UnknownObject,
    UnknownProperty,
)
from gpuwarden.bus.library import Variant
from gpuwarden.bus.tree import ObjectTree
from tests.integration.bus_peers import (
    OURS,
    STOCK,
    client,
    probe,
    service,
)
from tests.integration.bus_service import exported
from tests.integration.private_bus import (
    REPOSITORY,
    PrivateBus,
    private_bus,
)
from tests.integration.probe import FAULT, INTERFACE, NAME, ROOT, Probe

MACHINE_ID = Path("/etc/machine-id").read_text(encoding="ascii").strip()
PEER = "org.freedesktop.DBus.Peer"
PROPERTIES = "org.freedesktop.DBus.Properties"
MANAGER = "org.freedesktop.DBus.ObjectManager"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus() as running:
        yield running


# 5: tracebacks for callers


async def fault_text(bus: PrivateBus, module: str) -> BusError:
    async with service(module, bus), client(bus) as other:
        with pytest.raises(BusError) as caught:
            await probe(other, "Fail")
        return caught.value


async def test_a_fault_of_ours_shows_its_caller_no_source(bus: PrivateBus) -> None:
    ours = await fault_text(bus, OURS)
    assert isinstance(ours, Failed)
    assert FAULT not in ours.text
    assert ".py" not in ours.text
    stock = await fault_text(bus, STOCK)
    assert isinstance(stock, RemoteError)
    assert ".py" in stock.text


# 6: who calls


async def test_methods_at_the_same_time_each_know_their_caller(bus: PrivateBus) -> None:
    async with service(OURS, bus), client(bus) as first, client(bus) as second:
        answers = await asyncio.gather(
            probe(first, "Who", "d", [0.2]),
            probe(second, "Who", "d", [0.1]),
            probe(first, "Who", "d", [0.0]),
        )
        assert list(answers) == [first.unique_name, second.unique_name, first.unique_name]
        assert first.unique_name != second.unique_name


async def test_a_method_that_acts_is_refused_where_no_authority_is_set_up(
    bus: PrivateBus,
) -> None:
    async with service(OURS, bus), client(bus) as other:
        with pytest.raises(AccessDenied):
            await probe(other, "Act")


# 7: cancelled methods


async def cancelled_call(bus: PrivateBus, module: str) -> BusError:
    async with service(module, bus), client(bus) as other:
        waiting = asyncio.create_task(probe(other, "Wait", timeout_seconds=3))
        assert await probe(other, "Cancel") == 1
        with pytest.raises(BusError) as caught:
            await waiting
        return caught.value


async def test_a_cancelled_method_is_answered(bus: PrivateBus) -> None:
    assert isinstance(await cancelled_call(bus, OURS), Unavailable)
    assert isinstance(await cancelled_call(bus, STOCK), CallTimeout)


async def test_methods_under_way_are_answered_when_the_service_closes(bus: PrivateBus) -> None:
    objects = ObjectTree(ROOT)
    server_side = Bus(bus.address, objects)
    held = Probe()
    objects.export(ROOT, [exported(held)])
    await server_side.connect()
    await server_side.own_name(NAME)
    async with client(bus) as other:
        waiting = asyncio.create_task(probe(other, "Wait"))
        async with asyncio.timeout(5):
            await held.somebody_waits.wait()
        await server_side.close()
        with pytest.raises(Unavailable):
            await waiting


# 8: NUL


async def test_a_nul_in_an_answer_does_not_cost_the_connection(bus: PrivateBus) -> None:
    async with service(OURS, bus), client(bus) as other:
        assert await probe(other, "Unclean") == "before\ufffdafter"
        assert await probe(other, "Echo", "s", ["still here"]) == "still here"
    async with service(STOCK, bus), client(bus) as other:
        with pytest.raises(BusError):
            await probe(other, "Unclean", timeout_seconds=3)
        with pytest.raises(BusError):
            await probe(other, "Echo", "s", ["still here"], timeout_seconds=3)


# 12: machine id


async def test_the_machine_id_is_told_each_time(bus: PrivateBus) -> None:
    async with service(OURS, bus), client(bus) as other:
        answers = [await other.call(NAME, ROOT, PEER, "GetMachineId") for _ in range(2)]
        assert answers == [[MACHINE_ID], [MACHINE_ID]]
    async with service(STOCK, bus), client(bus) as other:
        with pytest.raises(CallTimeout):
            for _ in range(2):
                await other.call(NAME, ROOT, PEER, "GetMachineId", timeout_seconds=2)


# 13: ObjectManager elsewhere than at the root


async def test_managed_objects_are_told_at_the_root_alone(bus: PrivateBus) -> None:
    async with service(OURS, bus), client(bus) as other:
        (objects,) = await other.call(NAME, ROOT, MANAGER, "GetManagedObjects")
        assert list(objects) == [f"{ROOT}/part"]
        with pytest.raises(UnknownInterface):
            await other.call(NAME, f"{ROOT}/part", MANAGER, "GetManagedObjects")
    async with service(STOCK, bus), client(bus) as other:
        await other.call(NAME, f"{ROOT}/part", MANAGER, "GetManagedObjects")


# 14: annotations


async def introspected(bus: PrivateBus, module: str) -> str:
    async with service(module, bus), client(bus) as other:
        (xml,) = await other.call(NAME, ROOT, INTROSPECTABLE, "Introspect")
        return str(xml)


async def test_introspection_says_what_properties_emit_and_what_arguments_are_called(
    bus: PrivateBus,
) -> None:
    ours = await introspected(bus, OURS)
    assert "EmitsChangedSignal" in ours
    assert 'arg name="seconds" type="d" direction="out"' in ours
    stock = await introspected(bus, STOCK)
    assert "EmitsChangedSignal" not in stock


# 18: error names

WRONG_CALLS: list[tuple[str, str, str, str, list[object], type[BusError]]] = [
    ("/no/such/object", INTERFACE, "Echo", "s", ["x"], UnknownObject),
    (ROOT, f"{NAME}.Nonsense", "Echo", "s", ["x"], UnknownInterface),
    (ROOT, INTERFACE, "Nonsense", "", [], UnknownMethod),
    (ROOT, INTERFACE, "Echo", "u", [1], InvalidArgs),
    (ROOT, PROPERTIES, "Get", "ss", [INTERFACE, "Nonsense"], UnknownProperty),
    (ROOT, PROPERTIES, "Get", "ss", [f"{NAME}.Nonsense", "State"], UnknownInterface),
    (ROOT, PROPERTIES, "Get", "ss", ["", "Nonsense"], UnknownProperty),
    (ROOT, PROPERTIES, "GetAll", "s", [f"{NAME}.Nonsense"], UnknownInterface),
    (ROOT, PROPERTIES, "Set", "ssv", [INTERFACE, "State", Variant("s", "x")], PropertyReadOnly),
]


async def wrong_answers(bus: PrivateBus, module: str) -> list[type[BusError]]:
    answers = []
    async with service(module, bus), client(bus) as other:
        for path, interface, member, signature, body, _ in WRONG_CALLS:
            with pytest.raises(BusError) as caught:
                await other.call(NAME, path, interface, member, signature, body, timeout_seconds=5)
            answers.append(type(caught.value))
    return answers


async def test_each_wrong_call_gets_the_standard_error(bus: PrivateBus) -> None:
    expected = [error for *_, error in WRONG_CALLS]
    assert await wrong_answers(bus, OURS) == expected
    stock = await wrong_answers(bus, STOCK)
    assert [*map(lambda a, b: a is b, stock, expected)].count(False) >= 3


# 24: warnings


async def test_importing_the_bus_warns_of_nothing() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", "import gpuwarden.bus.bus", cwd=REPOSITORY
    )
    assert await process.wait() == 0


async def test_another_version_of_the_library_is_refused() -> None:
    program = (
        "import dbus_next.__version__ as v; v.__version__ = '0.2.4'; import gpuwarden.bus.library"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=REPOSITORY, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"runs with no other" in errors
