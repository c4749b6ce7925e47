# SPDX-License-Identifier: Apache-2.0
"""The documentation of the bus, from the tables: ``python -m gpuwarden.bus.objects.reference``.

It rewrites what stands between two marks in docs/dbus.md: who may do what, and every member.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuwarden.bus.interface import Argument, Emits, Interface
from gpuwarden.bus.objects.log_control import LOG_CONTROL
from gpuwarden.bus.objects.publisher import INTERFACES
from gpuwarden.bus.standard import INTROSPECTABLE, OBJECT_MANAGER, PEER, PROPERTIES
from gpuwarden.names import BUS_NAME, LOG_CONTROL_OBJECT

DOCUMENT = Path("docs/dbus.md")
BEGIN = "<!-- From the tables: python -m gpuwarden.bus.objects.reference -->\n"
END = "<!-- End of what is from the tables. -->\n"

OBJECTS = {
    f"{BUS_NAME}.Manager": "`/org/gpuwarden1`",
    f"{BUS_NAME}.Gpu": "`/org/gpuwarden1/gpu/INDEX`",
    f"{BUS_NAME}.Thermal": "`/org/gpuwarden1/gpu/INDEX`",
    f"{BUS_NAME}.Worker": "`/org/gpuwarden1/worker/NUMBER`",
    f"{BUS_NAME}.Gateway": "`/org/gpuwarden1/gateway`",
    LOG_CONTROL.name: f"`{LOG_CONTROL_OBJECT}`",
    OBJECT_MANAGER.name: "`/org/gpuwarden1`",
}
TOLD = {
    Emits.CONST: "never changes",
    Emits.TRUE: "told",
    Emits.INVALIDATES: "named",
    Emits.FALSE: "not told",
}

YES, NO, PASSWORD, NOBODY = "yes", "no", "password", "nobody"


@dataclass(frozen=True)
class Right:
    """Who may do one thing: a row of the matrix.

    :ivar action: the polkit action that it needs; None: none. ``nobody``: no one may.
    """

    interface: str
    what: str
    action: str | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """Anybody; a member of the group with polkit, without one, with a site's rule; root."""
        if self.action == NOBODY:
            return (NO,) * 5
        if self.action is None:
            return (NO, YES, YES, YES, YES)
        return (NO, PASSWORD, NO, YES, YES)


def rights() -> Iterator[Right]:
    """Every row of the matrix."""
    for interface in (*INTERFACES, LOG_CONTROL):
        name = interface.name
        for method in interface.methods:
            yield Right(name, f"{method.name}()", method.action)
        if interface.properties:
            yield Right(name, "read its properties")
        for each in interface.properties:
            if each.action is not None:
                yield Right(name, f"write {each.name}", each.action)
        if any(each.action is None for each in interface.properties):
            others = "write any other property" if interface is LOG_CONTROL else "write a property"
            yield Right(name, others, NOBODY)
        if interface.signals:
            yield Right(name, "hear its signals")
    for interface in (PEER, INTROSPECTABLE, PROPERTIES, OBJECT_MANAGER):
        if interface is not PROPERTIES:  # its methods are the rows above
            for method in interface.methods:
                yield Right(interface.name, f"{method.name}()")
        if interface.signals:
            yield Right(interface.name, "hear its signals")


def reference() -> str:
    """Everything that is generated, as Markdown."""
    parts = ["\n## Who may do what\n\n", _matrix()]
    for interface in (*INTERFACES, LOG_CONTROL):
        parts.append(f"\n## {interface.name}\n\nOn {OBJECTS[interface.name]}. {interface.doc}\n")
        parts += _members(interface)
    return "".join([*parts, "\n"])


def written_into(document: str) -> str:
    """``document`` with what is generated brought up to date. Raises ValueError without marks."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no marks to write between")
    return before + BEGIN + reference() + END + after


def _matrix() -> str:
    head = (
        "interface",
        "to",
        "anybody",
        "group `gpuwarden`",
        "group, no polkit",
        "group, a site's rule",
        "root",
        "polkit action",
    )
    rows = [
        (
            _short(right.interface),
            right.what,
            *right.cells,
            f"`{right.action}`" if right.action not in (None, NOBODY) else "",
        )
        for right in rights()
    ]
    return _table(head, rows)


def _members(interface: Interface[Any]) -> Iterator[str]:
    if interface.methods:
        methods = [
            (f"`{m.name}({_arguments(m.inputs)}){_outputs(m.outputs)}`", m.doc)
            for m in interface.methods
        ]
        yield "\n" + _table(("method", "does"), methods)
    if interface.properties:
        properties = [
            (f"`{p.name}`", f"`{p.signature}`", TOLD[p.emits], p.doc) for p in interface.properties
        ]
        yield "\n" + _table(("property", "type", "change is", "is"), properties)
    if interface.signals:
        signals = [(f"`{s.name}({_arguments(s.arguments)})`", s.doc) for s in interface.signals]
        yield "\n" + _table(("signal", "tells"), signals)


def _arguments(arguments: Iterable[Argument]) -> str:
    return ", ".join(f"{each.signature} {each.name}" for each in arguments)


def _outputs(arguments: Iterable[Argument]) -> str:
    told = _arguments(arguments)
    return f" -> {told}" if told else ""


def _short(interface: str) -> str:
    return interface.removeprefix(f"{BUS_NAME}.").removeprefix("org.freedesktop.")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(root: Path = Path()) -> int:
    """Bring the document below the project's root up to date."""
    path = root / DOCUMENT
    path.write_text(written_into(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
