# SPDX-License-Identifier: Apache-2.0
"""A bar that shows how far a command is, on a terminal alone."""

import shutil
import sys
import threading
import time

from gpuwarden.cli.working import alone

FULL, EMPTY = "#", "."
LONGEST_BAR_CHARACTERS = 40
REDRAW_SECONDS = 0.1


class Bar:
    """``submitted [####......]  412/1287  31/s  28 s left``, on standard error.

    :param verb: what has been done with each.
    """

    def __init__(self, verb: str, total: int) -> None:
        self._verb = verb
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._drawn = 0.0
        self._lock = threading.Lock()
        self._shown = sys.stderr.isatty()
        self._alone = alone()

    def __enter__(self) -> "Bar":
        self._alone.__enter__()
        self._draw()
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()
        self._alone.__exit__(None, None, None)

    def step(self) -> None:
        """One more is done; from any thread."""
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if now - self._drawn >= REDRAW_SECONDS or self._done == self._total:
                self._drawn = now
                self._draw()

    def clear(self) -> None:
        """Make room for a line of output."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _draw(self) -> None:
        if not self._shown:
            return
        seconds = time.monotonic() - self._started
        text = bar_text(self._verb, self._done, self._total, seconds)
        columns = shutil.get_terminal_size().columns
        sys.stderr.write(f"\r{text[: columns - 1]}\x1b[K")
        sys.stderr.flush()


def bar_text(verb: str, done: int, total: int, seconds: float) -> str:
    """The line itself."""
    filled = LONGEST_BAR_CHARACTERS * done // max(1, total)
    bar = FULL * filled + EMPTY * (LONGEST_BAR_CHARACTERS - filled)
    text = f"{verb} [{bar}]  {done}/{total}"
    if not done or seconds <= 0:
        return text
    left = (total - done) * seconds / done
    return f"{text}  {done / seconds:.1f}/s  {left:.0f} s left"
