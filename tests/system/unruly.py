# SPDX-License-Identifier: Apache-2.0
"""A model that misbehaves on request: its question says how. For the table of failures."""

import ctypes
import signal
import subprocess
import threading
import time

from gpuwarden.worker.engine import Context, Engine, Request

# Three generations below the worker; one with a session of its own; two that nobody is parent of.
CHILDREN = """
sh -c 'sleep 9001 & wait' &
setsid sleep 9002 &
(sleep 9003 &)
(setsid sleep 9004 &)
wait
"""


class Unruly(Engine):
    def load(self, context: Context) -> None:
        pass

    def preprocess(self, request: Request) -> str:
        return request.question or ""

    def predict(self, batch: list[str]) -> list[dict[str, str]]:
        for question in batch:
            getattr(self, question.replace("-", "_") or "obey")()
        return [{"did": question} for question in batch]

    def obey(self) -> None:
        time.sleep(0.05)

    def spawn(self) -> None:
        subprocess.Popen(["sh", "-c", CHILDREN])

    def ignore_sigterm(self) -> None:
        ctypes.CDLL(None).signal(signal.SIGTERM, 1)  # SIG_IGN, for every thread

    def hang(self) -> None:
        time.sleep(100_000)

    def leak(self) -> None:
        threading.Thread(target=self._leak, daemon=True).start()

    def _leak(self) -> None:
        kept = []
        while True:
            kept.append(b"\1" * (16 << 20))
