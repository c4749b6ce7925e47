# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden workers --memory``: the workers' memory on the cards, now and in the last hour."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from gpuwarden import names
from gpuwarden.chart.memory import MemoryRecord, memory_drawing
from gpuwarden.chart.output import SUFFIXES, PillowMissingError, draw_to_file
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.memory_screen import chart_lines, memory_lines, warning_bytes
from gpuwarden.cli.output import duration, warn
from gpuwarden.cli.service import get_status_or_last
from gpuwarden.cli.workers import BAD_STATES, TERMINAL
from gpuwarden.control.memory import MemoryHistory, MemorySeries
from gpuwarden.control.snapshot import SnapshotError, boottime_nanoseconds, read_snapshot
from gpuwarden.control.states import WorkerStatus

_FIGURES = ("number", "gpu", "state", "vram_reserved_bytes", "vram_allocated_bytes")


def show(plot: Path | None, *, as_json: bool) -> int:
    """Print or draw it; 1 when a worker is to be restarted for it, or isn't well.

    :raises CommandError: a file that can't be drawn or written.
    """
    if plot is not None and plot != TERMINAL and plot.suffix.lower() not in SUFFIXES:
        allowed = " or ".join(SUFFIXES)
        raise CommandError(f"--plot {plot}: the file's name must end in {allowed}", Exit.BAD_USE)
    known = get_status_or_last()
    warn(known.caveat)
    workers, history = known.data.workers, _history()
    if plot is not None and plot != TERMINAL:
        _draw(workers, history, plot)
    if as_json:
        print(json.dumps([_document(one, history.get(one.number)) for one in workers], indent=2))
    elif plot is None:
        print("\n".join(memory_lines(workers, history, sys.stdout.encoding)))
    elif plot == TERMINAL:
        blocks = [
            "\n".join(chart_lines(one, history[one.number], sys.stdout.encoding))
            for one in workers
            if one.number in history
        ]
        print("\n\n".join(blocks) or "  no worker has told anything of its memory")
    else:
        print(f"{plot}: the memory of {len(history)} workers")
    if not known.is_live:
        return Exit.UNREACHABLE
    return Exit.WRONG if any(_is_unwell(worker) for worker in workers) else Exit.GOOD


def _is_unwell(worker: WorkerStatus) -> bool:
    return worker.state in BAD_STATES or (
        worker.vram is not None and worker.vram.remedy == "recycle"
    )


def _history() -> Mapping[int, MemorySeries]:
    """The last hour by worker, as the front door has published it; that there is none is said."""
    try:
        snapshot = read_snapshot(names.GATEWAY_MEMORY_FILE, MemoryHistory)
    except SnapshotError as error:
        warn(f"no history: {error}")
        return {}
    now = boottime_nanoseconds()
    if not snapshot.is_fresh(now):
        age = snapshot.age_seconds(now)
        when = f"{duration(age)} ago" if age >= 0 else "before the last boot"
        warn(f"the history ends {when}: no worker has told anything of its memory since")
    return {series.number: series for series in snapshot.data.workers}


def _document(worker: WorkerStatus, series: MemorySeries | None) -> dict[str, object]:
    return {
        **worker.model_dump(mode="json", include={*_FIGURES, "vram_fragmentation", "vram"}),
        "history": None if series is None else series.model_dump(exclude={"number", "gpu"}),
    }


def _draw(workers: Sequence[WorkerStatus], history: Mapping[int, MemorySeries], file: Path) -> None:
    zone = datetime.now().astimezone().tzinfo
    records = [
        MemoryRecord(
            title=f"worker {worker.number} on GPU {worker.gpu}",
            seconds=history[worker.number].unix_seconds,
            reserved=history[worker.number].reserved_bytes,
            allocated=history[worker.number].allocated_bytes,
            warning_bytes=warning_bytes(worker),
            zone=zone,
        )
        for worker in workers
        if worker.number in history
    ]
    try:
        draw_to_file(memory_drawing(records), file)
    except PillowMissingError as error:
        raise CommandError(str(error), Exit.WRONG) from error
    except OSError as error:
        raise CommandError(f"{file} can't be written: {error.strerror}", Exit.WRONG) from error
