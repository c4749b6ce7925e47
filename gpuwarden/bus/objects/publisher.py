# SPDX-License-Identifier: Apache-2.0
"""Keeps the exported objects in step with the service, and tells who listens what changed."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.interface import Emits, Exported, Handler, Interface
from gpuwarden.bus.objects.changes import changed_values, thermal_changes, worker_changes
from gpuwarden.bus.objects.gateway import GATEWAY, GatewayCommands, gateway_handlers
from gpuwarden.bus.objects.gpu import GPU
from gpuwarden.bus.objects.manager import MANAGER, ManagerCommands, manager_handlers
from gpuwarden.bus.objects.thermal import THERMAL, ThermalCommands, thermal_handlers
from gpuwarden.bus.objects.worker import WORKER, worker_handlers
from gpuwarden.bus.source import Source
from gpuwarden.bus.standard import OBJECT_MANAGER, PROPERTIES
from gpuwarden.bus.wire import to_variant
from gpuwarden.control.states import GuardData, ThermalData, WorkerStatus
from gpuwarden.names import ROOT_OBJECT, gpu_object, worker_object

INTERFACES: tuple[Interface[Any], ...] = (MANAGER, GPU, THERMAL, WORKER, GATEWAY)
GATEWAY_OBJECT = f"{ROOT_OBJECT}/gateway"

# An object tells its changes at most twice a second: a listener that redraws on each
# (a page, a dashboard) stays idle, and a flapping value can't flood the bus.
MIN_INTERVAL_SECONDS = 0.5

Select = Callable[[GuardData], Any]
# Interface, selector, and what answers those of its methods that its table does not.
Parts = list[tuple[Interface[Any], Select, Mapping[str, Handler]]]


@dataclass(frozen=True)
class Commands:
    """What answers the methods that change something."""

    thermal: ThermalCommands
    manager: ManagerCommands
    gateway: GatewayCommands


@dataclass
class _Part:
    """One interface of an object, and what listeners were last told of it."""

    interface: Interface[Any]
    select: Select
    told: dict[str, Any]


@dataclass
class _Object:
    """An exported object, when listeners were last told of it, and when they will be again."""

    path: str
    parts: list[_Part]
    told_at: float = float("-inf")
    timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Publisher:
    """Exports the service's objects on ``bus`` and publishes each new state.

    Reads are answered from ``source`` at the time of the read; signals from what is published.

    :param commands: answer the methods that change something.
    """

    def __init__(self, bus: Bus, source: Source, commands: Commands) -> None:
        self._bus = bus
        self._source = source
        self._commands = commands
        self._published = source.status()
        self._objects: dict[str, _Object] = {}
        for path, parts in self._wanted(self._published).items():
            self._export(path, parts)

    def publish(self, new: GuardData) -> None:
        """Make ``new`` the published state: objects come and go, listeners are told."""
        old, self._published = self._published, new
        wanted = self._wanted(new)
        for path in [path for path in self._objects if path not in wanted]:
            self._withdraw(path)
        for path, parts in wanted.items():
            if path not in self._objects:
                self._export(path, parts)
                self._announce(path)
            elif old != new:
                self._tell(self._objects[path])
        self._tell_states(old, new)

    def orphan_found(self, pid: int, gpu_index: int, orphan_class: str) -> None:
        """Tell that a process holds a card's memory and belongs to no running worker."""
        signal = MANAGER.signal("OrphanFound")
        self._bus.emit(ROOT_OBJECT, MANAGER.name, signal, pid, gpu_index, orphan_class)

    def orphan_reaped(self, pid: int, freed_bytes: int) -> None:
        """Tell that such a process was ended."""
        signal = MANAGER.signal("OrphanReaped")
        self._bus.emit(ROOT_OBJECT, MANAGER.name, signal, pid, freed_bytes)

    def close(self) -> None:
        """Tell nothing more."""
        for each in self._objects.values():
            each.cancel()

    def _wanted(self, data: GuardData) -> dict[str, Parts]:
        """Every object that ``data`` calls for: its interfaces, and where each finds its values."""
        objects: dict[str, Parts] = {
            ROOT_OBJECT: [(MANAGER, lambda state: state, manager_handlers(self._commands.manager))],
            GATEWAY_OBJECT: [
                (GATEWAY, lambda state: state.gateway, gateway_handlers(self._commands.gateway))
            ],
        }
        for card in data.gpus:
            select_card = _card_selector(card.index)
            objects[gpu_object(card.index)] = [
                (GPU, select_card, {}),
                (THERMAL, select_card, thermal_handlers(self._commands.thermal, card.index)),
            ]
        for worker in data.workers:
            handlers = worker_handlers(self._commands.manager, worker.number)
            objects[worker_object(worker.number)] = [
                (WORKER, _worker_selector(worker.number), handlers)
            ]
        return objects

    def _export(self, path: str, parts: Parts) -> None:
        self._objects[path] = _Object(
            path,
            [
                _Part(interface, select, interface.values(select(self._published)))
                for interface, select, _ in parts
            ],
        )
        self._bus.objects.export(
            path,
            [
                Exported(interface, self._subject(select), handlers)
                for interface, select, handlers in parts
            ],
        )

    def _subject(self, select: Select) -> Callable[[], Any]:
        """Newest first; a card or worker that left the source a moment ago as last published."""
        last = select(self._published)

        def subject() -> Any:
            try:
                return select(self._source.status())
            except LookupError:
                try:
                    return select(self._published)
                except LookupError:
                    return last

        return subject

    def _withdraw(self, path: str) -> None:
        self._objects.pop(path).cancel()
        names = self._bus.objects.remove(path)
        signal = OBJECT_MANAGER.signal("InterfacesRemoved")
        self._bus.emit(ROOT_OBJECT, OBJECT_MANAGER.name, signal, path, names)

    def _announce(self, path: str) -> None:
        # From the root: the ObjectManager's object, not the new one's, as the specification says.
        signal = OBJECT_MANAGER.signal("InterfacesAdded")
        values = self._bus.objects.interface_values(path)
        self._bus.emit(ROOT_OBJECT, OBJECT_MANAGER.name, signal, path, values)

    def _tell(self, each: _Object) -> None:
        """Tell now, or when the interval is over: then what is current then."""
        loop = asyncio.get_running_loop()
        due = each.told_at + MIN_INTERVAL_SECONDS
        if each.timer is not None:
            return
        if loop.time() < due:
            each.timer = loop.call_at(due, self._tell_later, each)
            return
        told = [self._tell_changes(each.path, part) for part in each.parts]
        if any(told):
            each.told_at = loop.time()

    def _tell_later(self, each: _Object) -> None:
        each.timer = None
        self._tell(each)

    def _tell_changes(self, path: str, part: _Part) -> bool:
        interface = part.interface
        values = interface.values(part.select(self._published))
        with_value = changed_values(part.told, values, _emitting(interface, Emits.TRUE))
        by_name = changed_values(part.told, values, _emitting(interface, Emits.INVALIDATES))
        if not with_value and not by_name:
            return False
        part.told = values
        changed = {
            name: to_variant(interface.property_named(name).signature, value)
            for name, value in with_value.items()
        }
        signal = PROPERTIES.signal("PropertiesChanged")
        self._bus.emit(path, PROPERTIES.name, signal, interface.name, changed, sorted(by_name))
        return True

    def _tell_states(self, old: GuardData, new: GuardData) -> None:
        for worker in worker_changes(old, new):
            signal = MANAGER.signal("WorkerStateChanged")
            told = (worker.number, worker.old, worker.new, worker.reason)
            self._bus.emit(ROOT_OBJECT, MANAGER.name, signal, *told)
        for card in thermal_changes(old, new):
            signal = THERMAL.signal("StateChanged")
            path = gpu_object(card.gpu_index)
            self._bus.emit(
                path, THERMAL.name, signal, card.old, card.new, card.celsius, card.reason
            )


def _card_selector(index: int) -> Callable[[GuardData], ThermalData]:
    return lambda data: {card.index: card for card in data.gpus}[index]


def _worker_selector(number: int) -> Callable[[GuardData], WorkerStatus]:
    return lambda data: {worker.number: worker for worker in data.workers}[number]


def _emitting(interface: Interface[Any], emits: Emits) -> frozenset[str]:
    return frozenset(each.name for each in interface.properties if each.emits is emits)
