# SPDX-License-Identifier: Apache-2.0
"""The work that every system does for a request: no model, so that only the way there is measured.

A big body is an image whose bytes are all added up where they lie; a small one is JSON, read and
given back.
"""

import json
import time
from typing import Any

import numpy as np

IMAGE_LEAST_BYTES = 1 << 20
WORKERS = 2  # of each system


def prepare(body: Any) -> dict[str, Any]:
    """Read a body."""
    if len(body) >= IMAGE_LEAST_BYTES:
        return {"sum": int(np.frombuffer(body, np.uint64).sum(dtype=np.uint64))}
    return {"echo": json.loads(bytes(body))}


def predict(prepared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers; whoever asks for it keeps the batch for a while."""
    seconds = [one["echo"].get("sleep_seconds", 0) for one in prepared if "echo" in one]
    if any(seconds):
        time.sleep(max(seconds))
    return prepared


def answer(body: Any) -> dict[str, Any]:
    """One request from its body to its answer."""
    return predict([prepare(body)])[0]
