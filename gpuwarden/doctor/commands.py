# SPDX-License-Identifier: Apache-2.0
"""Other programs' answers, no longer than a deadline."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DEADLINE_SECONDS = 5.0  # all of them together still leave a doctor of a few seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program printed; ``problem`` says why there is nothing to go by, else it is empty."""

    text: str
    problem: str = ""


Run = Callable[[Sequence[str]], Answer]


def run(command: Sequence[str], deadline_seconds: float = DEADLINE_SECONDS) -> Answer:
    """The program's output; one that is missing, fails or hangs is a problem in words."""
    try:
        finished = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline_seconds,
            check=False,
        )
    except FileNotFoundError:
        return Answer("", f"{command[0]} is not installed")
    except subprocess.TimeoutExpired:
        return Answer("", f"{command[0]} did not answer within {deadline_seconds:.0f} s")
    except OSError as error:
        return Answer("", f"{command[0]}: {error.strerror}")
    if finished.returncode != 0:
        said = finished.stderr.strip().splitlines()
        return Answer(finished.stdout, said[-1] if said else f"status {finished.returncode}")
    return Answer(finished.stdout)
