# SPDX-License-Identifier: Apache-2.0
"""The objects we export: finding the member that a call names, or the right standard error.

A tree belongs to no connection, so that it outlives them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuwarden.bus.errors import (
    Failed,
    InvalidArgs,
    PropertyReadOnly,
    UnknownInterface,
    UnknownMethod,
    UnknownObject,
    UnknownProperty,
)
from gpuwarden.bus.interface import Exported, Handler, Interface, Method, Setter
from gpuwarden.bus.introspection import introspect
from gpuwarden.bus.library import Variant
from gpuwarden.bus.standard import INTROSPECTABLE, OBJECT_MANAGER, PEER, PROPERTIES

_MACHINE_ID_FILE = Path("/etc/machine-id")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes: its method's table entry, what answers it, and who may.

    :ivar action: the polkit action that a call with these arguments needs; None: none. Raises
        BusError where nobody may.
    """

    method: Method[Any]
    handler: Handler
    action: Callable[..., str | None]


class ObjectTree:
    """The exported objects under ``root``, which alone is the ObjectManager."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._objects: dict[str, dict[str, Exported[Any]]] = {}

    def export(self, path: str, interfaces: Sequence[Exported[Any]]) -> None:
        """Make an object known. Raises ValueError if the path or an interface is taken."""
        if path in self._objects:
            raise ValueError(f"{path} is exported already")
        by_name = {exported.interface.name: exported for exported in interfaces}
        if len(by_name) != len(interfaces):
            raise ValueError(f"{path}: an interface is given twice")
        self._objects[path] = by_name

    def remove(self, path: str) -> list[str]:
        """Forget an object; the names of the interfaces it had. Raises KeyError."""
        return list(self._objects.pop(path))

    def exported_at(self, path: str) -> list[Exported[Any]]:
        """Our interfaces on the object ``path``."""
        return list(self._objects.get(path, {}).values())

    def resolve(self, path: str, interface: str | None, member: str, signature: str) -> Route:
        """Where this call goes, decided from its header alone, before its body is parsed.

        :raises BusError: UnknownObject, UnknownInterface, UnknownMethod or InvalidArgs.
        """
        candidates = self._interfaces_at(path)
        if not candidates and interface != PEER.name:
            raise UnknownObject(f"there is no object {path}")
        found = _pick(path, [PEER, *candidates], interface, member)
        method = found.method(member)
        if signature != method.input_signature:
            raise InvalidArgs(
                f'{found.name}.{member} takes "{method.input_signature}", not "{signature}"'
            )
        handler = self._handler(path, found, method)
        if (found.name, member) == (PROPERTIES.name, "Set"):
            return Route(method, handler, lambda *arguments: self._writable(path, *arguments)[1])
        return Route(method, handler, lambda *_: method.action)

    def interface_values(self, path: str) -> dict[str, dict[str, Variant]]:
        """The interfaces and properties of one object, as ObjectManager tells them."""
        return {exported.interface.name: exported.values() for exported in self.exported_at(path)}

    def _interfaces_at(self, path: str) -> list[Interface[Any]]:
        own = [exported.interface for exported in self.exported_at(path)]
        manager = [OBJECT_MANAGER] if path == self.root and own else []
        if own:
            return [INTROSPECTABLE, PROPERTIES, *manager, *own]
        return [INTROSPECTABLE] if self._children(path) else []

    def _children(self, path: str) -> set[str]:
        prefix = path if path == "/" else f"{path}/"
        return {
            each[len(prefix) :].partition("/")[0]
            for each in self._objects
            if each.startswith(prefix) and each != path
        }

    def _handler(self, path: str, interface: Interface[Any], method: Method[Any]) -> Handler:
        standard: dict[tuple[str, str], Handler] = {
            (PEER.name, "Ping"): lambda: (),
            (PEER.name, "GetMachineId"): lambda: (machine_id(),),
            (INTROSPECTABLE.name, "Introspect"): lambda: (self._introspect(path),),
            (PROPERTIES.name, "Get"): lambda *names: (self._get(path, *names),),
            (PROPERTIES.name, "GetAll"): lambda name: (self._get_all(path, name),),
            (PROPERTIES.name, "Set"): lambda *arguments: self._set(path, *arguments),
            (OBJECT_MANAGER.name, "GetManagedObjects"): lambda: (self._managed(),),
        }
        found = standard.get((interface.name, method.name))
        return found or self._objects[path][interface.name].handler(method)

    def _introspect(self, path: str) -> str:
        interfaces = self._interfaces_at(path)
        return introspect([PEER, *interfaces], self._children(path))

    def _get(self, path: str, interface: str, name: str) -> Variant:
        return self._holder(path, interface, name).value(name)

    def _holder(self, path: str, interface: str, name: str) -> Exported[Any]:
        for exported in self._with_properties(path, interface):
            if any(each.name == name for each in exported.interface.properties):
                return exported
        raise UnknownProperty(f"{interface or path} has no property {name}")

    def _get_all(self, path: str, interface: str) -> dict[str, Variant]:
        values: dict[str, Variant] = {}
        for exported in self._with_properties(path, interface):
            values |= exported.values()
        return values

    def _set(self, path: str, interface: str, name: str, value: Variant) -> tuple[()]:
        setter, _ = self._writable(path, interface, name, value)
        setter(value.value)
        return ()

    def _writable(
        self, path: str, interface: str, name: str, value: Variant
    ) -> tuple[Setter, str | None]:
        """What takes the new value of a property, and the action that this needs."""
        exported = self._holder(path, interface, name)
        found = exported.interface.property_named(name)
        if found.action is None:
            raise PropertyReadOnly(f"{name} is read-only")
        if value.signature != found.signature:
            raise InvalidArgs(f'{name} is of type "{found.signature}", not "{value.signature}"')
        return exported.setters[name], found.action

    def _with_properties(self, path: str, interface: str) -> list[Exported[Any]]:
        """Our interfaces of that name at ``path``; the empty name stands for all of them."""
        if not interface:
            return self.exported_at(path)
        if interface in {each.name for each in (PEER, INTROSPECTABLE, PROPERTIES, OBJECT_MANAGER)}:
            return []
        if interface not in self._objects[path]:
            raise UnknownInterface(f"{path} has no interface {interface}")
        return [self._objects[path][interface]]

    def _managed(self) -> dict[str, dict[str, dict[str, Variant]]]:
        below = f"{self.root}/"
        return {
            path: self.interface_values(path) for path in self._objects if path.startswith(below)
        }


def machine_id() -> str:
    """This machine's identity. Raises Failed if it has none."""
    try:
        return _MACHINE_ID_FILE.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        raise Failed("this machine has no machine id") from None


def _pick(
    path: str, candidates: list[Interface[Any]], name: str | None, member: str
) -> Interface[Any]:
    if name is None:  # allowed by the specification: the first interface that has the member
        for interface in candidates:
            if any(method.name == member for method in interface.methods):
                return interface
        raise UnknownMethod(f"{path} has no method {member}")
    for interface in candidates:
        if interface.name == name:
            return interface
    raise UnknownInterface(f"{path} has no interface {name}")
