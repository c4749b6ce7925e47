# SPDX-License-Identifier: Apache-2.0
"""Callers in processes of their own: started with what to ask, and what came of it collected."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.engine.callers import Spec, Told

ENDING_SECONDS = 5.0  # of a section: requests that run then may end
LEAST_WAIT_SECONDS = 10.0

Answers = list[dict[str, Any]]


class Asking:
    """Callers that are asking.

    :param common: fields of ``Spec`` that are the same for all processes.
    :param seconds: after which no request begins.
    """

    def __init__(
        self, callers: int, requests: int, processes: int, seconds: float, common: dict[str, Any]
    ) -> None:
        processes = min(processes, callers)
        self.requests = requests
        self._processes = [
            _start(
                Spec(
                    callers=_share(callers, processes, number),
                    requests=_share(requests, processes, number),
                    until=time.time() + seconds,
                    seed=number,
                    **common,
                )
            )
            for number in range(processes)
        ]

    def collect(self, left: Callable[[], float]) -> Answers:
        """Wait for all; what came of them."""
        told: Answers = []
        for process in self._processes:
            try:
                out, _ = process.communicate(timeout=max(LEAST_WAIT_SECONDS, left()))
                told += json.loads(out)
            except (subprocess.TimeoutExpired, ValueError) as error:
                process.kill()
                process.wait()
                told.append(asdict(Told(error=f"callers ended with {type(error).__name__}")))
        return told


def keep(told: Answers, section: str, file: Path) -> None:
    """Add what came to a file, without the texts."""
    bare = [{**one, "text": len(one["text"])} for one in told]
    with file.open("a") as opened:
        opened.write(json.dumps({"section": section, "requests": bare}) + "\n")


def _share(whole: int, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)


def _start(spec: Spec) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tests.bench.engine.callers", json.dumps(asdict(spec))]
    return subprocess.Popen(words, stdout=subprocess.PIPE)
