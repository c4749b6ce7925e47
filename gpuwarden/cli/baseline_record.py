# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden baseline record``: looks each second, keeps each window on disk as it ends."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import __version__
from gpuwarden.baseline.recording import Recording, Window
from gpuwarden.baseline.store import StoreError, save
from gpuwarden.baseline.windows import Page, UnreadablePageError, Watched, window
from gpuwarden.cli import baseline_sources as sources
from gpuwarden.cli.bar import Bar
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.frontdoor import Door
from gpuwarden.cli.output import warn
from gpuwarden.metrics.sources import Places

LOOK_SECONDS = 1.0  # as often as the guards publish
FEWEST_WINDOWS, MOST_WINDOWS = 12, 288
WINDOW_SECONDS = 60.0  # of long recordings, up to five hours; a day has windows of five minutes


@dataclass(frozen=True)
class Asked:
    """What is to be recorded, and where to."""

    name: str
    note: str
    seconds: float
    file: Path


def windows_of(seconds: float) -> int:
    """Into how many windows a recording of that length is cut."""
    return int(min(MOST_WINDOWS, max(FEWEST_WINDOWS, seconds // WINDOW_SECONDS)))


def record(door: Door, asked: Asked, places: Places) -> Recording:
    """Record, and give what was kept.

    :raises CommandError: no front door (UNREACHABLE), or nowhere to write (WRONG).
    """
    recorder = Recorder(door, places)
    page: Page | None = recorder.page()
    count = windows_of(asked.seconds)
    recording = recorder.begun(asked, count)
    _save(recording, asked.file, is_first=True)
    try:
        with Bar("recorded", count) as bar:
            for number in range(count):
                taken, page = recorder.window(number, recording.window_seconds, page)
                windows = [*recording.windows, taken]
                recording = recording.model_copy(update={"windows": windows})
                _save(recording, asked.file, is_first=False)
                bar.step()
    except KeyboardInterrupt:
        warn(f"cut short: {len(recording.windows)} of {count} windows are in {asked.file}")
        raise
    recording = recorder.settled(recording)
    _save(recording, asked.file, is_first=False)
    return recording


class Recorder:
    """Reads the node, window by window."""

    def __init__(self, door: Door, places: Places, clock: Callable[[], float] = time.monotonic):
        self._door, self._places, self._clock = door, places, clock
        self._started = clock()

    def page(self) -> Page:
        """The front door's metrics. Raises CommandError."""
        connection = self._door.connect()
        try:
            page = sources.page(connection)
            page.buckets("total_seconds")
        except UnreadablePageError as error:
            raise CommandError(f"{self._door.place}: {error}", Exit.WRONG) from error
        finally:
            connection.close()
        return page

    def begun(self, asked: Asked, count: int) -> Recording:
        """The recording before its first window."""
        around = sources.surroundings(self._places)
        connection = self._door.connect()
        try:
            models = sources.models(connection)
        finally:
            connection.close()
        self._started = self._clock()
        return Recording(
            name=asked.name,
            note=asked.note,
            version=__version__,
            started_unix_microseconds=time.time_ns() // 1000,
            window_seconds=asked.seconds / count,
            windows_wanted=count,
            host=around.host,
            machine=around.machine,
            simulated=around.simulated,
            cards=around.cards,
            models=models,
            settings=around.settings,
        )

    def window(
        self, number: int, seconds: float, before: Page | None
    ) -> tuple[Window, Page | None]:
        """The next window, and the front door's metrics at its end; None while that is silent."""
        began = self._clock()
        end = self._started + (number + 1) * seconds
        watched = Watched()
        while (now := self._clock()) < end:
            watched.looks.append(sources.cards(self._places))
            time.sleep(max(0.0, min(LOOK_SECONDS, end - now)))
        try:
            after: Page | None = self.page()
        except CommandError:
            after = None  # the window says it; the next may have it again
        lasted = max(self._clock() - began, 1e-3)
        return window(began - self._started, lasted, before, after, watched), after

    def settled(self, recording: Recording) -> Recording:
        """With the names of what was set otherwise meanwhile."""
        after = sources.surroundings(self._places).settings
        before = recording.settings
        moved = [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
        return recording.model_copy(update={"unsettled": moved})


def _save(recording: Recording, file: Path, *, is_first: bool) -> None:
    try:
        save(recording, file, is_first=is_first)
    except StoreError as error:
        raise CommandError(str(error), Exit.WRONG) from error
