# SPDX-License-Identifier: Apache-2.0
"""A sign of life while a command waits for somebody, on a terminal alone."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

AFTER_SECONDS = 1.0  # what is quicker needs none
REDRAW_SECONDS = 0.2
TURNS = "|/-\\"
_ERASE = "\r\x1b[K"
_one_at_a_time = threading.Lock()


class Working:
    """``| asking medgemma-guard ... 3 s``, on standard error, from the second second on."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._drawing = threading.Lock()
        self._drawn = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """Draw from now on."""
        self._thread.start()

    def end(self) -> None:
        """Draw no more, and leave nothing."""
        self._ended.set()
        self._thread.join()
        self.clear()

    def clear(self) -> None:
        """Make room for a line of output."""
        with self._drawing:
            if self._drawn:
                self._drawn = False
                sys.stderr.write(_ERASE)
                sys.stderr.flush()

    def _run(self) -> None:
        self._ended.wait(AFTER_SECONDS)
        turn = 0
        while not self._ended.is_set():
            with self._drawing:
                text = working_text(self._doing, time.monotonic() - self._began, turn)
                columns = shutil.get_terminal_size().columns
                sys.stderr.write(f"{_ERASE}{text[: columns - 1]}")
                sys.stderr.flush()
                self._drawn = True
            turn += 1
            self._ended.wait(REDRAW_SECONDS)


def working_text(doing: str, seconds: float, turn: int) -> str:
    """The line itself."""
    return f"{TURNS[turn % len(TURNS)]} {doing} ... {seconds:.0f} s"


@contextmanager
def working(doing: str) -> Iterator[Working]:
    """Show that something is being done while the block runs.

    Nothing is shown off a terminal, beside another sign of life, or by a thread that works beside
    a screen.
    """
    sign = Working(doing)
    in_front = threading.current_thread() is threading.main_thread()
    if not (in_front and sys.stderr.isatty() and _one_at_a_time.acquire(blocking=False)):
        yield sign
        return
    sign.begin()
    try:
        yield sign
    finally:
        sign.end()
        _one_at_a_time.release()


@contextmanager
def alone() -> Iterator[None]:
    """No sign of life while the block runs: it shows one of its own."""
    taken = _one_at_a_time.acquire(blocking=False)
    try:
        yield
    finally:
        if taken:
            _one_at_a_time.release()
