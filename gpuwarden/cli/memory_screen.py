# SPDX-License-Identifier: Apache-2.0
"""The workers' memory as a table and as a chart of characters. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gpuwarden.cli.output import UNKNOWN, coloured, duration, fitted, gibibytes, table
from gpuwarden.cli.sparkline import can_be_written, sparkline
from gpuwarden.control.memory import MemorySeries
from gpuwarden.control.states import WorkerStatus

_HEADER = (
    *("WORKER", "GPU", "RESERVED", "ALLOCATED", "PEAK", "SPLIT", "SHARE"),
    *("ALLOCS", "RETRIES", "FAILED", "SHORT", "REMEDY"),
)
_HISTORY_HEADER = ("WORKER", "GIB", "MIN", "MAX", "LAST", "COURSE")
_LEGEND = "  GiB; SHARE of what it may hold; SHORT: times that requests ran out of memory"
COURSE_COLUMNS = 40
CHART_COLUMNS, CHART_ROWS = 64, 10
BLOCKS = "\u2588\u2592"  # in use; held and not in use
ASCII_BLOCKS = "#+"
_LABEL_COLUMNS = 7


def memory_lines(
    workers: Sequence[WorkerStatus], history: Mapping[int, MemorySeries], encoding: str | None
) -> list[str]:
    """How each stands, then how each stood in the last hour."""
    known = [worker for worker in workers if _is_known(worker)]
    if not known:
        return ["  no worker has told anything of its memory"]
    header, *rows = table(_HEADER, [_row(worker) for worker in known])
    lines = [fitted(header)]
    for worker, row in zip(known, rows, strict=True):
        lines.append(coloured(fitted(row), "warn" if worker.vram and worker.vram.remedy else ""))
    lines.append(_LEGEND)
    lines += [fitted(f"  worker {one.number}: {_note(one)}") for one in known if _note(one)]
    past = [row for one in known for row in _past(one.number, history, encoding)]
    if past:
        lines += ["", *map(fitted, table(_HISTORY_HEADER, past))]
    return lines


def _is_known(worker: WorkerStatus) -> bool:
    return worker.vram is not None or worker.vram_reserved_bytes is not None


def _row(worker: WorkerStatus) -> tuple[str, ...]:
    memory, reserved = worker.vram, worker.vram_reserved_bytes
    held = (gibibytes(reserved), gibibytes(worker.vram_allocated_bytes))
    if memory is None:
        return (str(worker.number), str(worker.gpu), *held, *[UNKNOWN] * 8)
    share = UNKNOWN
    if reserved is not None and memory.limit_bytes:
        share = f"{reserved / memory.limit_bytes:.0%}"
    counts = (memory.num_device_alloc, memory.num_alloc_retries, memory.num_ooms)
    return (
        *(str(worker.number), str(worker.gpu), *held),
        *(gibibytes(memory.peak_bytes), gibibytes(memory.inactive_split_bytes), share),
        *(UNKNOWN if count is None else str(count) for count in counts),
        str(memory.shortages + memory.shortages_alone),
        memory.remedy or "none",
    )


def _note(worker: WorkerStatus) -> str:
    memory = worker.vram
    if memory is None:
        return ""
    if memory.is_tight:
        return "over its warning threshold from its start: its settings are too large"
    if memory.batch_ceiling is not None:
        return f"batches of {memory.batch_ceiling} at most, for want of memory"
    return ""


def _past(
    number: int, history: Mapping[int, MemorySeries], encoding: str | None
) -> list[tuple[str, ...]]:
    """A row for each figure that is known."""
    series = history.get(number)
    if series is None:
        return []
    figures = (
        ("reserved", series.reserved_bytes),
        ("allocated", series.allocated_bytes),
        ("split", series.inactive_split_bytes),
    )
    rows = []
    for name, values in figures:
        known = [value for value in values if value is not None]
        if known:
            extremes = (min(known), max(known), known[-1])
            course = sparkline(_columns(series.unix_seconds, values, COURSE_COLUMNS), encoding)
            rows.append((str(number), name, *map(gibibytes, extremes), course))
    return rows


# --- the chart


@dataclass(frozen=True)
class _Column:
    reserved: float | None
    allocated: float | None


def chart_lines(worker: WorkerStatus, series: MemorySeries, encoding: str | None) -> list[str]:
    """One worker's hour: what was in use, what was held beyond that, and where a warning begins."""
    seconds = series.unix_seconds
    title = f"worker {worker.number} on GPU {worker.gpu}, GiB"
    reserved = _columns(seconds, series.reserved_bytes, CHART_COLUMNS)
    allocated = _columns(seconds, series.allocated_bytes, CHART_COLUMNS)
    known = [value for value in reserved if value is not None]
    if not known:
        return [title, "  nothing is recorded yet"]
    blocks = BLOCKS if can_be_written(BLOCKS, encoding) else ASCII_BLOCKS
    warning = warning_bytes(worker)
    top = max(*known, 1.0)
    if warning is not None and warning <= 2 * top:
        top = max(top, warning)
    columns = [_Column(*pair) for pair in zip(reserved, allocated, strict=True)]
    step = top / CHART_ROWS
    lines = [title]
    for place in range(CHART_ROWS, 0, -1):
        middle = (place - 0.5) * step
        is_warning = warning is not None and (place - 1) * step < warning <= place * step
        cells = "".join(_cell(column, middle, blocks, is_warning) for column in columns)
        lines.append(f"{_label(place * step)} |{cells}".rstrip())
    lines.append(f"{_label(0)} +{'-' * CHART_COLUMNS}")
    lines.append(" " * (_LABEL_COLUMNS + 2) + _time_line(seconds))
    legend = f"{blocks[0]} in use  {blocks[1]} held, not in use"
    if warning is not None:
        legend += f"  - warning at {gibibytes(int(warning))}"
    lines.append(" " * (_LABEL_COLUMNS + 2) + legend)
    return lines


def _cell(column: _Column, middle: float, blocks: str, is_warning: bool) -> str:
    if column.allocated is not None and column.allocated >= middle:
        return blocks[0]
    if column.reserved is not None and column.reserved >= middle:
        return blocks[1]
    return "-" if is_warning else " "


def warning_bytes(worker: WorkerStatus) -> float | None:
    """From where on something is done about it; None: unknown."""
    memory = worker.vram
    if memory is None or not memory.limit_bytes or memory.warning_threshold is None:
        return None
    return memory.limit_bytes * memory.warning_threshold


def _columns(
    seconds: Sequence[int], values: Sequence[int | None], count: int
) -> list[float | None]:
    """The largest of each of ``count`` equal stretches of the time; None where nothing is known."""
    found: list[float | None] = [None] * count
    if not seconds:
        return found
    span = max(seconds[-1] - seconds[0], 1)
    for second, value in zip(seconds, values, strict=True):
        place = min(max((second - seconds[0]) * count // span, 0), count - 1)
        before = found[place]
        if value is not None and (before is None or value > before):
            found[place] = float(value)
    return found


def _time_line(seconds: Sequence[int]) -> str:
    """When it begins and ends, and how long that is."""
    first, last = (
        datetime.fromtimestamp(second, UTC).astimezone() for second in (seconds[0], seconds[-1])
    )
    start, end = f"{first:%H:%M}", f"{last:%H:%M}"
    long = duration(seconds[-1] - seconds[0])
    return f"{start}{long:^{CHART_COLUMNS - len(start) - len(end)}}{end}"


def _label(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:>{_LABEL_COLUMNS}.1f}"
