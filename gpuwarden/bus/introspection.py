# SPDX-License-Identifier: Apache-2.0
"""Introspection XML from interface tables: live on the bus, and documented for the package."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Any

from gpuwarden.bus.interface import Argument, Interface, Property

DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
EMITS_CHANGED = "org.freedesktop.DBus.Property.EmitsChangedSignal"
DOCUMENTATION = "org.gtk.GDBus.DocString"  # read by gdbus-codegen, ignored by all others


def introspect(interfaces: Iterable[Interface[Any]], children: Iterable[str]) -> str:
    """The answer of Introspectable.Introspect: what is here and what is directly below."""
    node = ET.Element("node")
    for interface in interfaces:
        _add_interface(node, interface, documented=False)
    for child in sorted(children):
        ET.SubElement(node, "node", name=child)
    return DOCTYPE + ET.tostring(node, encoding="unicode")


def documented_xml(interface: Interface[Any]) -> str:
    """The XML file that the package ships for ``interface``, with its documentation."""
    node = ET.Element("node")
    _add_interface(node, interface, documented=True)
    ET.indent(node)
    return DOCTYPE + ET.tostring(node, encoding="unicode") + "\n"


def _add_interface(node: ET.Element, interface: Interface[Any], *, documented: bool) -> None:
    element = ET.SubElement(node, "interface", name=interface.name)
    if documented:
        _annotate(element, DOCUMENTATION, interface.doc)
    for method in interface.methods:
        child = ET.SubElement(element, "method", name=method.name)
        _add_arguments(child, method.inputs, "in")
        _add_arguments(child, method.outputs, "out")
        if documented:
            _annotate(child, DOCUMENTATION, method.doc)
    for signal in interface.signals:
        child = ET.SubElement(element, "signal", name=signal.name)
        _add_arguments(child, signal.arguments, None)
        if documented:
            _annotate(child, DOCUMENTATION, signal.doc)
    for each in interface.properties:
        child = ET.SubElement(
            element, "property", name=each.name, type=each.signature, access=_access(each)
        )
        _annotate(child, EMITS_CHANGED, each.emits.value)
        if documented:
            _annotate(child, DOCUMENTATION, each.doc)


def _access(each: Property[Any]) -> str:
    return "read" if each.action is None else "readwrite"


def _add_arguments(
    parent: ET.Element, arguments: Iterable[Argument], direction: str | None
) -> None:
    for argument in arguments:
        element = ET.SubElement(parent, "arg", name=argument.name, type=argument.signature)
        if direction:
            element.set("direction", direction)


def _annotate(parent: ET.Element, name: str, value: str) -> None:
    ET.SubElement(parent, "annotation", name=name, value=value)
