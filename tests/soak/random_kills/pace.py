# SPDX-License-Identifier: Apache-2.0
"""How fast this node is at a moment: what the smallest Python program takes."""

import subprocess
import threading
import time

PERIOD_SECONDS = 1.5


class Pace:
    """Runs ``python3 -c pass`` again and again beside everything else, and under its load."""

    def __init__(self) -> None:
        self._measured: list[tuple[float, float]] = []
        self._news = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def pass_seconds(self, since: float) -> float:
        """The mean from that moment (``time.monotonic()``) until the next one is done."""
        now = time.monotonic()
        with self._news:
            self._news.wait_for(lambda: self._measured and self._measured[-1][0] > now)
            taken = [seconds for ended, seconds in self._measured if ended > since]
        return sum(taken) / len(taken)

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_SECONDS):
            began = time.monotonic()
            subprocess.run(["python3", "-c", "pass"], check=True)
            ended = time.monotonic()
            with self._news:
                self._measured = [each for each in self._measured if each[0] > ended - 900]
                self._measured.append((ended, ended - began))
                self._news.notify_all()
