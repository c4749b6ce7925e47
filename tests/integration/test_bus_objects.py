# SPDX-License-Identifier: Apache-2.0
# The exported objects as others see them: busctl, the shipped XML, signals.

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator

import pytest

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.introspection import DOCUMENTATION, documented_xml
from gpuwarden.bus.objects.publisher import GATEWAY_OBJECT, INTERFACES, MIN_INTERVAL_SECONDS
from gpuwarden.bus.signals import Signal
from gpuwarden.control.states import GuardData, Orphan
from gpuwarden.names import BUS_NAME, ROOT_OBJECT, gpu_object, worker_object
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.integration.bus_peers import Guarded, client, guarded
from tests.integration.bus_states import card, gateway, state, worker
from tests.integration.bus_tree import GOLDEN, tree
from tests.integration.private_bus import REPOSITORY, ROOT, PrivateBus, private_bus
from tests.waiting import DEADLINE_SECONDS

SHIPPED = REPOSITORY / "packaging/dbus"
PROPERTIES = "org.freedesktop.DBus.Properties"
PATHS = (ROOT_OBJECT, gpu_object(0), worker_object(0), GATEWAY_OBJECT)


@pytest.fixture
async def bus() -> AsyncIterator[PrivateBus]:
    async with private_bus() as running:
        yield running


@pytest.fixture
async def service(bus: PrivateBus) -> AsyncIterator[Guarded]:
    async with guarded(bus) as running:
        yield running


@pytest.fixture
async def listener(bus: PrivateBus, service: Guarded) -> AsyncIterator[Bus]:
    async with client(bus) as connection:
        yield connection


class Heard:
    """Signals as they come in."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Signal] = asyncio.Queue()

    async def next(self) -> Signal:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.queue.get()


async def listen(listener: Bus) -> Heard:
    heard = Heard()
    await listener.subscribe(BUS_NAME, None, None, None, heard.queue.put_nowait)
    return heard


# Introspection


def shape(element: ET.Element) -> object:
    """An XML element without its documentation, in an order that does not matter."""
    return (
        element.tag,
        tuple(sorted(element.attrib.items())),
        tuple(shape(child) for child in element if child.get("name") != DOCUMENTATION),
    )


async def live_interfaces(service: Guarded, listener: Bus) -> dict[str, ET.Element]:
    found = {}
    for path in PATHS:
        (xml,) = await listener.call(
            BUS_NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect"
        )
        for interface in ET.fromstring(xml).iter("interface"):
            if interface.get("name", "").startswith(BUS_NAME):
                found[interface.get("name", "")] = interface
    return found


async def test_shipped_interfaces_are_the_live_ones(service: Guarded, listener: Bus) -> None:
    live = await live_interfaces(service, listener)
    shipped = {}
    for path in sorted(SHIPPED.glob("*.xml")):
        (interface,) = ET.parse(path).getroot().iter("interface")
        assert path.stem == interface.get("name")
        shipped[path.stem] = interface
    assert shipped.keys() == live.keys()
    for name, interface in live.items():
        assert shape(shipped[name]) == shape(interface), name


async def test_the_whole_tree_is_the_golden_one(service: Guarded, listener: Bus) -> None:
    golden = GOLDEN.read_text(encoding="utf-8")
    assert await tree(listener) == golden, "run: python -m tests.integration.bus_tree"


def test_shipped_files_are_what_their_writer_writes() -> None:
    for interface in INTERFACES:
        text = (SHIPPED / f"{interface.name}.xml").read_text(encoding="utf-8")
        assert text == documented_xml(interface), (
            "run: python -m gpuwarden.bus.objects packaging/dbus"
        )


def test_every_shipped_member_is_documented() -> None:
    for path in SHIPPED.glob("*.xml"):
        (interface,) = ET.parse(path).getroot().iter("interface")
        for member in (interface, *interface):
            if member.tag != "annotation":
                docs = [one.get("value") for one in member if one.get("name") == DOCUMENTATION]
                assert len(docs) == 1, (path.name, member.get("name"))
                assert docs[0]


# busctl


async def test_busctl_shows_the_tree(bus: PrivateBus, service: Guarded) -> None:
    status, output = await bus.busctl(ROOT, "tree", "--list", BUS_NAME)
    assert status == 0
    listed = output.split()
    expected = [*PATHS, gpu_object(1), worker_object(1)]
    assert [path for path in expected if path not in listed] == []


async def test_busctl_shows_what_each_property_emits(bus: PrivateBus, service: Guarded) -> None:
    status, output = await bus.busctl(ROOT, "introspect", BUS_NAME, gpu_object(0))
    assert status == 0
    flags = {line.split()[0]: line.split()[-1] for line in output.splitlines() if line}
    assert flags[".Index"] == "const"
    assert flags[".AlertCelsius"] == "emits-change"
    assert flags[".Actuators"] == "emits-invalidation"
    assert flags[".TemperatureCelsius"] == "-"


@pytest.mark.parametrize(
    ("path", "interface", "member", "printed"),
    [
        (ROOT_OBJECT, "Manager", "State", 's "running"'),
        (ROOT_OBJECT, "Manager", "Simulated", "b true"),
        (gpu_object(1), "Gpu", "VramTotalBytes", "t 150754820096"),
        (gpu_object(1), "Gpu", "MemoryTemperatureCelsius", "d nan"),
        (gpu_object(1), "Gpu", "NumaNode", "i 1"),
        (gpu_object(0), "Thermal", "BatchLimit", "u 0"),
        (worker_object(1), "Worker", "VramFragmentation", "d nan"),
        (GATEWAY_OBJECT, "Gateway", "BatchLimits", "a{uu} 2 0 4 1 4"),
        (GATEWAY_OBJECT, "Gateway", "P95ResponseSeconds", "d nan"),
    ],
)
async def test_busctl_reads_properties(
    bus: PrivateBus, service: Guarded, path: str, interface: str, member: str, printed: str
) -> None:
    status, output = await bus.busctl(
        ROOT, "get-property", BUS_NAME, path, f"{BUS_NAME}.{interface}", member
    )
    assert (status, output.strip()) == (0, printed)


async def test_an_absent_gateway_reads_as_unknown(bus: PrivateBus) -> None:
    async with guarded(bus, state(gateway=None)):
        _, output = await bus.busctl(
            ROOT,
            "get-property",
            BUS_NAME,
            GATEWAY_OBJECT,
            f"{BUS_NAME}.Gateway",
            "QueueDepth",
            "MeanResponseSeconds",
            "BatchLimits",
        )
        assert output.split("\n")[:3] == ["u 0", "d nan", "a{uu} 0"]


# Methods


async def test_lists_and_status(service: Guarded, listener: Bus) -> None:
    manager = f"{BUS_NAME}.Manager"
    assert await listener.call(BUS_NAME, ROOT_OBJECT, manager, "ListWorkers") == [
        [
            [0, worker_object(0), "medgemma-worker@0.service", "ready", 1000],
            [1, worker_object(1), "medgemma-worker@1.service", "ready", 1001],
        ]
    ]
    (gpus,) = await listener.call(BUS_NAME, ROOT_OBJECT, manager, "ListGpus")
    assert gpus[1] == [1, gpu_object(1), "GPU-00000001", "NVIDIA H200", "normal"]
    (text,) = await listener.call(BUS_NAME, ROOT_OBJECT, manager, "GetStatus")
    assert GuardData.model_validate(json.loads(text)) == service.source.data


# Signals


async def test_a_worker_that_changes_is_told(service: Guarded, listener: Bus) -> None:
    heard = await listen(listener)
    ghost = worker(1, state=WorkerState.GHOST, reason="context lost", requests=99)
    service.publish(state(workers=[worker(0), ghost]))
    changed, signal = await heard.next(), await heard.next()
    assert (changed.path, changed.member) == (worker_object(1), "PropertiesChanged")
    assert changed.interface == PROPERTIES
    interface, values, invalidated = changed.body
    assert (interface, invalidated) == (f"{BUS_NAME}.Worker", [])
    assert values == {"State": "ghost"}
    assert (signal.path, signal.member) == (ROOT_OBJECT, "WorkerStateChanged")
    assert signal.body == [1, "ready", "ghost", "context lost"]


async def test_a_card_that_heats_up_is_told(service: Guarded, listener: Bus) -> None:
    heard = await listen(listener)
    hot = card(0, state=ThermalState.ALERT, temperature_celsius=83.5, reason="above 80")
    service.publish(state(gpus=[hot, card(1)]))
    changed, signal = await heard.next(), await heard.next()
    assert changed.body[0] == f"{BUS_NAME}.Thermal"
    assert set(changed.body[1]) == {"State", "Reason"}
    assert (signal.path, signal.member) == (gpu_object(0), "StateChanged")
    assert signal.interface == f"{BUS_NAME}.Thermal"
    assert signal.body == ["normal", "alert", 83.5, "above 80"]


async def test_orphans_are_listed_and_told(service: Guarded, listener: Bus) -> None:
    heard = await listen(listener)
    orphan = Orphan(
        pid=4242,
        start_time_ticks=1,
        gpu=1,
        orphan_class="ours-dead",
        command="python3",
        vram_bytes=None,
        since=1_700_000_000_000_000,
        scans_seen=3,
    )
    service.publish(state(orphans=[orphan, orphan.model_copy(update={"vram_bytes": 2**33})]))
    rows = await listener.call(BUS_NAME, ROOT_OBJECT, f"{BUS_NAME}.Manager", "ListOrphans")
    assert rows == [[[4242, 1, "ours-dead", "python3", each] for each in (0, 2**33)]]
    service.publisher.orphan_found(4242, 1, "ours-dead")
    service.publisher.orphan_reaped(4242, 2**33)
    found, reaped = await heard.next(), await heard.next()
    assert (found.path, found.member, found.body) == (
        *(ROOT_OBJECT, "OrphanFound", [4242, 1, "ours-dead"]),
    )
    assert (reaped.path, reaped.member, reaped.body) == (
        *(ROOT_OBJECT, "OrphanReaped", [4242, 2**33]),
    )


async def test_volatile_values_are_not_told(service: Guarded, listener: Bus) -> None:
    heard = await listen(listener)
    warm = card(0, temperature_celsius=60.0, power_watts=500.0, utilization=0.5, throttles=3)
    busy = worker(0, requests=100, failures=2, restarts=1, process_count=9)
    service.publish(
        state(gpus=[warm, card(1)], workers=[busy, worker(1)], gateway=gateway(accepted=99))
    )
    service.publish(state(profile="marker"))
    assert (await heard.next()).body[1]["Profile"] == "marker"
    (value,) = await listener.call(
        BUS_NAME, gpu_object(0), PROPERTIES, "Get", "ss", [f"{BUS_NAME}.Gpu", "PowerWatts"]
    )
    assert value == 410.5


async def test_a_property_that_invalidates_is_only_named(service: Guarded, listener: Bus) -> None:
    heard = await listen(listener)
    service.publish(state(gpus=[card(0, actuators={}), card(1)]))
    assert (await heard.next()).body == [f"{BUS_NAME}.Thermal", {}, ["Actuators"]]


async def test_changes_are_told_at_most_twice_a_second_and_the_last_one_always(
    service: Guarded, listener: Bus
) -> None:
    heard = await listen(listener)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for ready in range(50):
        service.publish(state(workers_ready=ready))
    first, last = await heard.next(), await heard.next()
    assert first.body[1]["WorkersReady"] == 0
    assert last.body[1]["WorkersReady"] == 49
    assert loop.time() - began >= MIN_INTERVAL_SECONDS * 0.9
    assert heard.queue.empty()


async def test_a_value_that_came_back_before_it_was_told_is_not_told(
    service: Guarded, listener: Bus
) -> None:
    heard = await listen(listener)
    service.publish(state(workers_ready=1))
    service.publish(state(workers_ready=0))
    service.publish(state(workers_ready=1))
    assert (await heard.next()).body[1]["WorkersReady"] == 1
    service.publish(state(workers_ready=1, state=ServiceState.DEGRADED))
    assert set((await heard.next()).body[1]) == {"State"}


async def test_objects_come_and_go_with_the_managers_signals(
    service: Guarded, listener: Bus
) -> None:
    heard = await listen(listener)
    service.publish(state(workers=[worker(0), worker(1), worker(2)]))
    added = await heard.next()
    assert (added.path, added.member) == (ROOT_OBJECT, "InterfacesAdded")
    path, interfaces = added.body
    assert path == worker_object(2)
    assert interfaces[f"{BUS_NAME}.Worker"]["Number"] == 2
    service.publish(state(workers=[worker(0), worker(1)]))
    removed = await heard.next()
    assert (removed.path, removed.member) == (ROOT_OBJECT, "InterfacesRemoved")
    assert removed.body == [worker_object(2), [f"{BUS_NAME}.Worker"]]
    (objects,) = await listener.call(
        BUS_NAME, ROOT_OBJECT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"
    )
    assert set(objects) == {
        GATEWAY_OBJECT,
        *map(gpu_object, (0, 1)),
        *map(worker_object, (0, 1)),
    }
