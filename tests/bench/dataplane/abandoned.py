# SPDX-License-Identifier: Apache-2.0
"""Callers who hang up, and one who comes after them."""

import http.client
import json
import time

from tests.bench.dataplane.load import Load, connect, request_of

PATIENCE_SECONDS = 0.1


def abandon_and_ask(load: Load, count: int, service_seconds: float) -> float:
    """How long the last caller waits. Raises ValueError where the answer is no answer.

    :param service_seconds: what each request keeps a worker.
    """
    request = request_of(load, json.dumps({"sleep_seconds": service_seconds}).encode())
    callers = [connect(load) for _ in range(count)]
    for caller in callers:
        caller.sendall(request)
    time.sleep(PATIENCE_SECONDS)
    for caller in callers:
        caller.close()
    with connect(load) as caller:
        started = time.monotonic()
        caller.sendall(request)
        response = http.client.HTTPResponse(caller)
        response.begin()
        response.read()
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        return time.monotonic() - started
