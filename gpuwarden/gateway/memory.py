# SPDX-License-Identifier: Apache-2.0
"""What workers tell of their memory on the cards: kept for an hour, published, acted upon."""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from gpuwarden.control.memory import MemoryHistory, MemorySeries, Remedy, WorkerMemory
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.messages import Figures
from gpuwarden.gateway.relief import Decision, News, Reading, Relief, Step, decide
from gpuwarden.systemd.events import Event, tell
from gpuwarden.worker.frames import Frame, FrameType

ROWS = 720  # an hour of them
ROW_SECONDS = 4.0  # a report each 5 s; what comes earlier is of the same row
HOUR_SECONDS = 3600.0
VALID_MILLISECONDS = 15_000  # two reports may be late
TELL_SECONDS = 60.0  # of one worker's shortages, at most so often
REMEDIES: dict[Step, Remedy] = {
    Step.NONE: "",
    Step.CACHES: "caches",
    Step.BATCHES: "batches",
    Step.RECYCLE: "recycle",
}

Row = tuple[int, int | None, int | None, int | None]  # unix seconds, reserved, allocated, split


@dataclass
class _Kept:
    """One worker by its number.

    :ivar pid: of the life that ``relief`` is about.
    :ivar told: shortages that the journal knows of; ``told_at`` since when.
    """

    gpu: int
    rows: deque[Row] = field(default_factory=lambda: deque(maxlen=ROWS))
    last_seconds: float = -HOUR_SECONDS
    pid: int = 0
    relief: Relief = field(default_factory=Relief)
    told: int = 0
    told_at: float = -TELL_SECONDS


class MemoryWatch:
    """Takes each report of each worker.

    :param file: where the last hour is published.
    """

    def __init__(self, dispatcher: Dispatcher, file: Path) -> None:
        self._dispatcher = dispatcher
        self._writer = SnapshotWriter(file, "gateway", VALID_MILLISECONDS)
        self._loop = asyncio.get_running_loop()
        self._kept: dict[int, _Kept] = {}
        self._published_at = -HOUR_SECONDS

    def told(self, link: WorkerLink, figures: Figures) -> None:
        """A worker has said how its memory stands."""
        now = self._loop.time()
        kept = self._kept.setdefault(link.number, _Kept(link.seat.card))
        kept.gpu = link.seat.card
        if kept.pid != link.peer.pid:
            kept.pid, kept.relief, kept.told = link.peer.pid, Relief(), 0
        self._keep(kept, figures, now)
        self._act(link, kept, decide(kept.relief, reading_of(link, figures), now))
        self._tell_shortages(link, kept, figures, now)
        self._publish(now)
        self._dispatcher.changed()

    def _keep(self, kept: _Kept, figures: Figures, now: float) -> None:
        row: Row = (
            int(time.time()),
            figures.reserved_bytes,
            figures.allocated_bytes,
            figures.inactive_split_bytes,
        )
        if now - kept.last_seconds < ROW_SECONDS and kept.rows:
            kept.rows[-1] = row
            return
        kept.last_seconds = now
        kept.rows.append(row)

    def _act(self, link: WorkerLink, kept: _Kept, decision: Decision) -> None:
        kept.relief = link.relief = decision.relief
        if decision.drop_caches:
            link.send(Frame(FrameType.RELIEVE))
        if link.seat.ceiling != decision.relief.ceiling:
            link.seat.ceiling = decision.relief.ceiling
            card = link.seat.card
            self._dispatcher.limit(card, self._dispatcher.queue.cards[card].limits)
        if decision.news is not None:
            tell_news(link, decision.news)

    def _tell_shortages(self, link: WorkerLink, kept: _Kept, figures: Figures, now: float) -> None:
        count = figures.shortages + figures.shortages_alone
        if count <= kept.told or now - kept.told_at < TELL_SECONDS:
            return
        new, kept.told, kept.told_at = count - kept.told, count, now
        times = "once" if new == 1 else f"{new} times"
        alone = f"{figures.shortages_alone} of {count} with one request alone"
        reason = f"its model ran out of memory {times}, {alone}"
        tell(
            Event.WORKER_OUT_OF_MEMORY,
            f"worker {link.number}: {reason}; smaller batches were tried",
            logging.WARNING,
            **_of(link, reason),
        )

    def _publish(self, now: float) -> None:
        """Publish the last hour, not more often than a worker reports."""
        if now - self._published_at < ROW_SECONDS:
            return
        self._published_at = now
        for number, kept in list(self._kept.items()):
            if now - kept.last_seconds > HOUR_SECONDS:
                del self._kept[number]
        self._writer.publish_or_say(self.history())

    def history(self) -> MemoryHistory:
        """The last hour."""
        return MemoryHistory(
            workers=[_series(number, kept) for number, kept in sorted(self._kept.items())]
        )


def _series(number: int, kept: _Kept) -> MemorySeries:
    rows = list(kept.rows)
    return MemorySeries(
        number=number,
        gpu=kept.gpu,
        unix_seconds=[row[0] for row in rows],
        reserved_bytes=[row[1] for row in rows],
        allocated_bytes=[row[2] for row in rows],
        inactive_split_bytes=[row[3] for row in rows],
    )


def reading_of(link: WorkerLink, figures: Figures) -> Reading:
    """What is decided upon."""
    return Reading(
        share=share_of(figures),
        threshold=figures.warning_threshold,
        shortages=figures.shortages,
        max_batch=link.seat.max_batch,
    )


def share_of(figures: Figures) -> float | None:
    """How much of its share of the card a worker's allocator holds; None: unknown."""
    if figures.reserved_bytes is None or not figures.limit_bytes:
        return None
    return figures.reserved_bytes / figures.limit_bytes


def memory_of(link: WorkerLink) -> WorkerMemory | None:
    """A worker's memory as it is published; None where it tells nothing of it."""
    figures, relief = link.figures, link.relief
    if figures is None:
        return None
    return WorkerMemory(
        **figures.model_dump(exclude={"reserved_bytes", "allocated_bytes"}),
        remedy=REMEDIES[relief.step],
        is_tight=relief.is_tight,
        batch_ceiling=relief.ceiling,
    )


def tell_news(link: WorkerLink, news: News) -> None:
    """Each step, and its end, for the journal."""
    figures = link.figures
    share = share_of(figures) if figures else None
    held = "an unknown part" if share is None else f"{share:.0%}"
    why = f"it holds {held} of its share of GPU {link.seat.card}"
    if news is News.RELIEVED:
        reason = f"{why}: {_relieved(link.relief)}"
        level = logging.INFO
        tell(Event.WORKER_MEMORY_RELIEVED, _about(link, reason), level, **_of(link, reason))
    elif news is News.TIGHT:
        reason = f"{why}, and did so from its start"
        tell(Event.WORKER_MEMORY_TIGHT, _about(link, reason), logging.WARNING, **_of(link, reason))
    else:
        if news is News.SMALLER:
            why = "its model ran out of memory"
        reason = f"{why}: {_remedy(link.relief)}"
        tell(Event.WORKER_MEMORY_REMEDY, _about(link, reason), logging.WARNING, **_of(link, reason))


def _remedy(relief: Relief) -> str:
    if relief.step is Step.CACHES:
        return "its caches are dropped"
    if relief.step is Step.RECYCLE:
        return "it is restarted at the next idle moment"
    return f"batches of {relief.ceiling} at most"


def _relieved(relief: Relief) -> str:
    if relief.ceiling is not None:
        return f"no restart, batches of {relief.ceiling} at most"
    return "all is as it was"


def _about(link: WorkerLink, reason: str) -> str:
    return f"worker {link.number}: {reason}"


def _of(link: WorkerLink, reason: str) -> dict[str, object]:
    return {"WORKER": link.number, "GPU": link.seat.card, "REASON": reason}
