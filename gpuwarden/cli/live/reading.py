# SPDX-License-Identifier: Apache-2.0
"""Looks at the service again and again, beside the screen: a slow answer holds up no key."""

import threading
import time
from collections.abc import Callable

from gpuwarden.chart.series import Moment
from gpuwarden.cli.exits import CommandError
from gpuwarden.cli.known import Known
from gpuwarden.cli.thermal_sources import look

Look = Callable[[], Known]
Tell = Callable[[Known | None, str], None]


class Reading:
    """A thread that looks every so often and tells what it has seen, or why it has seen nothing.

    A daemon thread: who quits waits for no answer of a service that is silent.
    """

    def __init__(self, look_up: Look, every_seconds: float, tell: Tell) -> None:
        self._look_up = look_up
        self._every_seconds = every_seconds
        self._tell = tell
        self._ended = threading.Event()
        self._asked = threading.Event()

    def begin(self) -> None:
        """Look from now on."""
        threading.Thread(target=self._run, daemon=True).start()

    def again(self) -> None:
        """Look at once: something was ordered."""
        self._asked.set()

    def end(self) -> None:
        """No more looks."""
        self._ended.set()
        self._asked.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                known, error = self._look_up(), ""
            except CommandError as failure:
                known, error = None, str(failure)
            if self._ended.is_set():
                return
            self._tell(known, error)
            self._asked.wait(max(0.0, self._every_seconds - (time.monotonic() - began)))
            self._asked.clear()


def past(gpu_index: int) -> tuple[Moment, ...]:
    """The last hour of a card, as its guard or the bus tells it; nothing where neither does.

    Then the charts begin now, and the details say why.
    """
    try:
        (heat,) = look(gpu_index)
    except CommandError:
        return ()
    return heat.moments
