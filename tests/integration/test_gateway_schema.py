# SPDX-License-Identifier: Apache-2.0
"""schemathesis drives every operation of /openapi.json: no 500, and answers as described."""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from gpuwarden.gateway.access import Access, digest_of
from gpuwarden.gateway.operations import OPERATIONS
from tests.integration.gateway_node import gateway_node
from tests.integration.real_worker import real_worker

KEY = "k" * 32
HELLO: Any = [{"role": "user", "content": "hello"}]
PLAIN = ("model", "stream", "temperature", "seed", "user")
EXAMPLES = 5  # for each operation, each way of making them and each of these
WAYS = tuple(itertools.product((True, False), repeat=2))  # with a known name, with the key
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
CANCEL = ("PATCH", "/v1/jobs/{id}")
NAMES = [(operation.method, operation.path) for operation in OPERATIONS]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A front door with a real worker, in a thread of its own."""
    up, stop = threading.Event(), asyncio.Event()
    found: dict[str, asyncio.AbstractEventLoop | str] = {}

    async def serve() -> None:
        async with gateway_node() as node, real_worker(node):
            node.service._routes.access = Access((digest_of(KEY.encode()),))
            found["loop"] = asyncio.get_running_loop()
            found["address"] = f"http://127.0.0.1:{node.port}"
            up.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(30)
    yield str(found["address"])
    loop = found["loop"]
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)


@pytest.fixture(scope="module")
def document(address: str) -> schemathesis.BaseSchema:
    with urlopen(f"{address}/openapi.json") as answer:
        return schemathesis.openapi.from_dict(json.load(answer))


def sent(address: str, path: str) -> str:
    """The id of a new image or job, finished if it is its result that is asked for."""
    family = "/v1/images" if "/images/" in path else "/v1/jobs"
    request = Request(f"{address}{family}", b"pixels", {"Content-Type": "image/png"})
    with urlopen(request, timeout=20) as answer:
        identifier: str = json.load(answer)["id"]
    if "/results/" in path:
        with urlopen(f"{address}{family}/{identifier}?wait=20", timeout=30):
            pass
    return identifier


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), NAMES, ids=lambda word: word.strip("/"))
def test_no_request_gets_an_answer_that_is_not_described(
    document: schemathesis.BaseSchema,
    address: str,
    method: str,
    path: str,
    mode: schemathesis.GenerationMode,
) -> None:
    operation = document[path][method]
    if mode is schemathesis.GenerationMode.NEGATIVE and not (
        operation.body or list(operation.iter_parameters())
    ):
        return  # nothing in it that could be wrong

    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def run(is_known: bool, has_key: bool, case: schemathesis.Case[Any]) -> None:
        if is_known and "{id}" in path:
            case.path_parameters["id"] = sent(address, path)
        if is_known and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "test-model"  # or few chats would get past its name
            case.headers.pop("X-Gpuwarden-Model", None)
            if has_key and mode is schemathesis.GenerationMode.POSITIVE:
                # And fewer past the images that it makes up, or all parameters at once.
                kept = {name: case.body[name] for name in PLAIN if name in case.body}
                case.body = {**kept, "messages": HELLO}
        headers = {"Authorization": f"Bearer {KEY}"} if has_key else {}
        came = case.call_and_validate(base_url=address, checks=CHECKS, timeout=20, headers=headers)
        statuses.add(came.status_code)

    for is_known, has_key in WAYS:
        run(is_known, has_key)
    if mode is schemathesis.GenerationMode.POSITIVE:
        # It got past the key and the names: one at least was answered with what it is for. A
        # cancel comes too late, unless the worker is slow.
        assert min(statuses) < 300 or ((method, path) == CANCEL and 409 in statuses)
