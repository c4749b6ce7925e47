# SPDX-License-Identifier: Apache-2.0
"""org.gpuwarden1(5): every object and member of the bus, from the tables that it is made of."""

from collections.abc import Iterator, Sequence
from typing import Any

from gpuwarden.bus import errors
from gpuwarden.bus.interface import Argument, Interface
from gpuwarden.bus.objects.publisher import INTERFACES
from gpuwarden.bus.objects.reference import OBJECTS, TOLD
from gpuwarden.names import BUS_NAME, OPERATORS_GROUP, ROOT_OBJECT
from tools.manual.roff import Page

ERRORS = (
    *(errors.NoSuchWorker, errors.NoSuchGpu, errors.InvalidArgument, errors.Busy),
    *(errors.Unavailable, errors.Failed, errors.AccessDenied),
)


def pages(date: str, version: str) -> Iterator[Page]:
    """The one page."""
    page = Page(BUS_NAME, 5, "the D-Bus interface of gpuwarden", date, version)
    page.section_of("Synopsis")
    page.verbatim([f"busctl introspect {BUS_NAME} {ROOT_OBJECT}"])
    page.section_of("Description")
    page.paragraph(
        f"medgemma-guard.service(8) owns the name {BUS_NAME} on the system bus. Root and members "
        f"of the group `{OPERATORS_GROUP}` may call it; what changes something asks polkit for the "
        "action that stands with it, and has no effect where that is refused. Types are D-Bus "
        "signatures; NaN is an unknown number."
    )
    for interface in INTERFACES:
        _interface(page, interface)
    page.section_of("Errors")
    for error in ERRORS:
        page.item(error.name, str(error.__doc__).splitlines()[0])
    page.section_of("Examples")
    manager = f"{BUS_NAME} {ROOT_OBJECT} {BUS_NAME}.Manager"
    gpu = f"{BUS_NAME} {ROOT_OBJECT}/gpu/0 {BUS_NAME}"
    page.item(f"busctl get-property {manager} State", "how the service is")
    page.item(f"busctl call {manager} RestartWorker u 1", "restart worker 1")
    page.item(f"busctl call {gpu}.Thermal Override su alert 600", "cool card 0 for ten minutes")
    page.see_also([("busctl", 1), ("gpuwarden", 1), ("medgemma-guard.service", 8)])
    yield page


def _interface(page: Page, interface: Interface[Any]) -> None:
    page.section_of(interface.name)
    page.paragraph(f"{interface.doc} On {OBJECTS[interface.name].strip('`')}.")
    for method in interface.methods:
        action = f" Needs {method.action}." if method.action else ""
        signature = f"{method.name}({_arguments(method.inputs)})"
        outputs = f" -> {_arguments(method.outputs)}" if method.outputs else ""
        page.item(f"{signature}{outputs}", f"{method.doc}{action}")
    for each in interface.properties:
        page.item(f"{each.name} ({each.signature})", f"{each.doc} Changes: {TOLD[each.emits]}.")
    for signal in interface.signals:
        page.item(f"signal {signal.name}({_arguments(signal.arguments)})", signal.doc)


def _arguments(arguments: Sequence[Argument]) -> str:
    return ", ".join(f"{each.signature} {each.name}" for each in arguments)
