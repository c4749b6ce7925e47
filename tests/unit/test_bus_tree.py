# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import pytest

from gpuwarden.bus.errors import (
    BusError,
    InvalidArgs,
    NameHasNoOwner,
    NoSuchWorker,
    RemoteError,
    UnknownInterface,
    UnknownMethod,
    UnknownObject,
    error_from,
)
from gpuwarden.bus.interface import Argument, Emits, Exported, Interface, Method, Property
from gpuwarden.bus.tree import ObjectTree

THING: Interface[dict[str, int]] = Interface(
    "org.example.Thing",
    "",
    methods=(
        Method(
            "Sum", "", outputs=(Argument("sum", "u"),), answer=lambda held: (sum(held.values()),)
        ),
    ),
    properties=(Property("A", "u", Emits.TRUE, lambda held: held["a"], ""),),
)


def tree() -> ObjectTree:
    objects = ObjectTree("/org/example")
    objects.export("/org/example", [Exported(THING, lambda: {"a": 1, "b": 2})])
    objects.export("/org/example/part/0", [Exported(THING, lambda: {"a": 3})])
    return objects


def answer(objects: ObjectTree, *call: str) -> object:
    path, interface, member, signature, *arguments = call
    route = objects.resolve(path, interface or None, member, signature)
    return route.handler(*arguments)


PROPERTIES = "org.freedesktop.DBus.Properties"
MANAGER = "org.freedesktop.DBus.ObjectManager"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("/org/nothing", "org.example.Thing", "Sum", ""), UnknownObject),
        (("/org/example/part", "org.example.Thing", "Sum", ""), UnknownInterface),
        (("/org/example", "org.example.Other", "Sum", ""), UnknownInterface),
        (("/org/example", "org.example.Thing", "Product", ""), UnknownMethod),
        (("/org/example", "", "Product", ""), UnknownMethod),
        (("/org/example", "org.example.Thing", "Sum", "s"), InvalidArgs),
        (("/org/example", PROPERTIES, "Get", "s"), InvalidArgs),
        (("/org/example/part/0", MANAGER, "GetManagedObjects", ""), UnknownInterface),
        (("/", MANAGER, "GetManagedObjects", ""), UnknownInterface),
    ],
)
def test_each_wrong_call_gets_its_own_error(call: tuple[str, ...], error: type[BusError]) -> None:
    with pytest.raises(error):
        tree().resolve(call[0], call[1] or None, call[2], call[3])


def test_a_call_without_interface_finds_the_member() -> None:
    assert answer(tree(), "/org/example", "", "Sum", "") == (3,)


def test_peer_answers_at_any_path() -> None:
    assert answer(tree(), "/no/such/object", "org.freedesktop.DBus.Peer", "Ping", "") == ()


def test_introspection_names_what_is_directly_below() -> None:
    (xml,) = _texts(answer(tree(), "/", "org.freedesktop.DBus.Introspectable", "Introspect", ""))
    assert '<node name="org" />' in xml


def _texts(outputs: object) -> Sequence[str]:
    assert isinstance(outputs, tuple)
    return outputs


def test_a_path_is_exported_once() -> None:
    objects = tree()
    with pytest.raises(ValueError, match="exported already"):
        objects.export("/org/example", [])


def test_a_method_that_acts_needs_a_handler() -> None:
    acting: Interface[None] = Interface("a.b", "", methods=(Method("Go", "", action="a.b.go"),))
    with pytest.raises(ValueError, match="needs either"):
        Exported(acting, lambda: None)


def test_a_method_that_acts_can_not_be_answered_from_its_table() -> None:
    acting: Interface[None] = Interface(
        "a.b", "", methods=(Method("Go", "", action="a.b.go", answer=lambda _: ()),)
    )
    with pytest.raises(ValueError, match="needs a handler"):
        Exported(acting, lambda: None)


@pytest.mark.parametrize(
    ("name", "body", "kind"),
    [
        ("org.gpuwarden1.Error.NoSuchWorker", ["no worker 7"], NoSuchWorker),
        ("org.freedesktop.DBus.Error.NameHasNoOwner", [], NameHasNoOwner),
        ("org.freedesktop.systemd1.NoSuchUnit", ["Unit x not loaded."], RemoteError),
        (None, [5], BusError),
    ],
)
def test_errors_of_peers_become_typed(
    name: str | None, body: list[object], kind: type[BusError]
) -> None:
    error = error_from(name, body)
    assert isinstance(error, kind)
    assert error.name == (name or error.name)
