# SPDX-License-Identifier: Apache-2.0
"""The same screen again and again, until Ctrl-C."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpuwarden.cli.output import warn

# Redrawn in place, in one write: a screen that is cleared first flickers.
_HOME, _TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = "\x1b[2J"


@dataclass(frozen=True)
class Look:
    """One screen, and what is to be said beside it."""

    lines: Sequence[str]
    caveat: str = ""


def repeat(look: Callable[[], Look], every_seconds: float, *, for_scripts: bool) -> None:
    """Show what ``look`` gives, over and over; return on Ctrl-C.

    On a terminal each screen takes the place of the former; elsewhere an empty line parts them.

    :param for_scripts: plain lines, one look after the other, wherever they go.
    """
    show: Callable[[Look], None] = _Stream("" if for_scripts else "\n")
    if sys.stdout.isatty() and not for_scripts:
        show = _Terminal()
    try:
        while True:
            began = time.monotonic()
            show(look())
            time.sleep(max(0.0, every_seconds - (time.monotonic() - began)))
    except KeyboardInterrupt:
        return


class _Stream:
    """One look after the other."""

    def __init__(self, between: str) -> None:
        self._between = between
        self._began = False

    def __call__(self, look: Look) -> None:
        warn(look.caveat)
        if not look.lines:
            return
        before = self._between if self._began else ""
        self._began = True
        print(before + "\n".join(look.lines), flush=True)


class _Terminal:
    """Always the same screen."""

    def __init__(self) -> None:
        self._began = False

    def __call__(self, look: Look) -> None:
        text = redrawn(look.lines, shutil.get_terminal_size().lines)
        sys.stdout.write(text if self._began else f"{_HOME}{_CLEAR}{text}")
        sys.stdout.flush()
        self._began = True


def redrawn(lines: Sequence[str], height: int) -> str:
    """What puts these lines over those that are there; the cursor ends up below them."""
    shown = list(lines)
    if len(shown) >= height:  # the last line is the cursor's
        hidden = len(shown) - height + 2
        shown = [*shown[: height - 2], f"  ... {hidden} more lines: enlarge the terminal"]
    body = "".join(f"{line}{_TO_END_OF_LINE}\n" for line in shown)
    return f"{_HOME}{body}{_TO_END_OF_SCREEN}"
