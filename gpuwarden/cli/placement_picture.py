# SPDX-License-Identifier: Apache-2.0
"""The plan as text: a table of the workers, and the sockets with what is on them. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from gpuwarden.control.states import Card, PlanData, PlannedNode, PlannedWorker
from gpuwarden.cpulist import format_cpu_list, parse_cpu_list
from gpuwarden.text import one_line

WIDTH = 78
_INNER = WIDTH - 6  # the indent, both borders and a space beside each
HEADER = ("WORKER", "GPU", "NODE", "CPUS", "OWN", "MEMORY")
_HOUSEKEEPING, _FREE, _FORBIDDEN = "H", ".", "x"


def worker_row(worker: PlannedWorker) -> tuple[str, ...]:
    """The worker's row of the table."""
    memory = "any node"
    if worker.memory_policy != "none":
        memory = f"node {worker.memory_node}, {worker.memory_policy}"
    return (
        str(worker.number),
        str(worker.gpu_index),
        str(worker.numa_node) if worker.numa_node >= 0 else "-",
        worker.cpus or "any (not pinned)",
        "yes" if worker.has_own_cpus else "no",
        memory,
    )


def picture(plan: PlanData) -> list[str]:
    """A box for each NUMA node, one for cards that are on none, and what the marks mean."""
    marks = _marks(plan)
    lines = [line for node in plan.nodes for line in _box(node, plan, marks)]
    drawn = {node.number for node in plan.nodes}
    homeless = [card for card in plan.cards if card.numa_node not in drawn]
    if homeless:
        lines += _boxed("on no known NUMA node", [_card_line(card, plan) for card in homeless])
    return [*lines, f"  {legend(marks.values())}"]


def legend(used: Iterable[str]) -> str:
    """What the marks of the picture mean, of those that are in it."""
    marks = set(used)
    said = []
    if any(mark.startswith(_HOUSEKEEPING) for mark in marks):
        said.append("H housekeeping")
    if any(mark.startswith("w") for mark in marks):
        said.append("wN worker N")
    if any(mark.endswith("+") for mark in marks):
        said.append("+ and others")
    if _FREE in marks:
        said.append(". nobody's")
    if _FORBIDDEN in marks:
        said.append("x kept from workers by a cpuset")
    return ", ".join(said)


def _box(node: PlannedNode, plan: PlanData, marks: Mapping[int, str]) -> list[str]:
    count = len(_cpus(node))
    cpus = "no CPU" if not count else "1 CPU" if count == 1 else f"{count} CPUs"
    socket = f"socket {node.socket}, " if node.socket is not None else ""
    memory = "memory" if node.has_memory else "no memory"
    cards = [_card_line(card, plan) for card in plan.cards if card.numa_node == node.number]
    title = f"{socket}NUMA node {node.number}: {cpus}, {memory}"
    return _boxed(title, [*_cpu_lines(node, marks), *(cards or ["no card"])])


def _boxed(title: str, lines: Sequence[str]) -> list[str]:
    top = f"  +-- {title} ".ljust(WIDTH - 1, "-") + "+"
    rows = [f"  | {_fitted(line).ljust(_INNER)} |" for line in lines]
    return [top, *rows, "  +".ljust(WIDTH - 1, "-") + "+"]


def _cpu_lines(node: PlannedNode, marks: Mapping[int, str]) -> list[str]:
    """The CPUs, siblings of a core side by side, and below each whose it is."""
    cells = [(str(cpu), marks[cpu]) for cpu in _cpus(node)]
    width = max((len(part) for cell in cells for part in cell), default=0) + 1
    per_row = max(1, (_INNER - len("CPU ")) // width)
    lines = []
    for start in range(0, len(cells), per_row):
        row = cells[start : start + per_row]
        lines.append("CPU " + "".join(cpu.rjust(width) for cpu, _ in row))
        lines.append("    " + "".join(mark.rjust(width) for _, mark in row))
    return lines


def _cpus(node: PlannedNode) -> list[int]:
    return [cpu for core in node.cores for cpu in sorted(parse_cpu_list(core))]


def _marks(plan: PlanData) -> dict[int, str]:
    """Whose each CPU is; a plus for all but the first where it is more than one's."""
    workers = [(f"w{worker.number}", parse_cpu_list(worker.cpus)) for worker in plan.workers]
    owners = [(_HOUSEKEEPING, parse_cpu_list(plan.housekeeping_cpus)), *workers]
    usable = parse_cpu_list(plan.worker_cpus)
    marks = {}
    for cpu in (cpu for node in plan.nodes for cpu in _cpus(node)):
        names = [name for name, cpus in owners if cpu in cpus]
        plus = "+" if len(names) > 1 else ""
        nobody = _FREE if cpu in usable else _FORBIDDEN
        marks[cpu] = f"{names[0]}{plus}" if names else nobody
    return marks


def _card_line(card: Card, plan: PlanData) -> str:
    numbers = [worker.number for worker in plan.workers if worker.gpu_index == card.index]
    if not card.present:
        whose = "not there"
    elif not numbers:
        whose = "no worker"
    else:
        whose = f"{'worker' if len(numbers) == 1 else 'workers'} {format_cpu_list(numbers)}"
    return f"GPU {card.index}  {card.pci_address}  {whose}  {card.name}"


def _fitted(line: str) -> str:
    line = one_line(line)
    return line if len(line) <= _INNER else f"{line[: _INNER - 1]}>"
