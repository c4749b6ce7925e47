# SPDX-License-Identifier: Apache-2.0
"""The interfaces that D-Bus itself defines, as tables like our own."""

from gpuwarden.bus.interface import Argument, Interface, Method, Signal

PEER: Interface[None] = Interface(
    "org.freedesktop.DBus.Peer",
    "Answered at any path.",
    methods=(
        Method("Ping", "Answer."),
        Method(
            "GetMachineId",
            "The identity of this machine.",
            outputs=(Argument("machine_uuid", "s"),),
        ),
    ),
)

INTROSPECTABLE: Interface[None] = Interface(
    "org.freedesktop.DBus.Introspectable",
    "What an object can do.",
    methods=(
        Method("Introspect", "Members of this object.", outputs=(Argument("xml_data", "s"),)),
    ),
)

PROPERTIES: Interface[None] = Interface(
    "org.freedesktop.DBus.Properties",
    "Access to properties.",
    methods=(
        Method(
            "Get",
            "One property.",
            inputs=(Argument("interface_name", "s"), Argument("property_name", "s")),
            outputs=(Argument("value", "v"),),
        ),
        Method(
            "GetAll",
            "All properties of an interface.",
            inputs=(Argument("interface_name", "s"),),
            outputs=(Argument("properties", "a{sv}"),),
        ),
        Method(
            "Set",
            "Write a property, where it is not read-only, as all are that are ours.",
            inputs=(
                Argument("interface_name", "s"),
                Argument("property_name", "s"),
                Argument("value", "v"),
            ),
        ),
    ),
    signals=(
        Signal(
            "PropertiesChanged",
            "Some properties changed.",
            (
                Argument("interface_name", "s"),
                Argument("changed_properties", "a{sv}"),
                Argument("invalidated_properties", "as"),
            ),
        ),
    ),
)

OBJECT_MANAGER: Interface[None] = Interface(
    "org.freedesktop.DBus.ObjectManager",
    "All objects at once, and their coming and going.",
    methods=(
        Method(
            "GetManagedObjects",
            "Every object below with its interfaces and properties.",
            outputs=(Argument("objects", "a{oa{sa{sv}}}"),),
        ),
    ),
    signals=(
        Signal(
            "InterfacesAdded",
            "An object appeared.",
            (Argument("object_path", "o"), Argument("interfaces", "a{sa{sv}}")),
        ),
        Signal(
            "InterfacesRemoved",
            "An object is gone.",
            (Argument("object_path", "o"), Argument("interfaces", "as")),
        ),
    ),
)
