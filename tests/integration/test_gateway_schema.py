"""schemathesis drives every operation of /openapi.json: no 500, and answers as described."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from gpuwarden.gateway.operations import OPERATIONS
from tests.integration.gateway_node import gateway_node
from tests.integration.real_worker import real_worker

EXAMPLES = 20  # for each operation and each way of making them
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
NAMES = [(operation.method, operation.path) for operation in OPERATIONS]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A front door with a real worker, in a thread of its own."""
    up, stop = threading.Event(), asyncio.Event()
    found: dict[str, asyncio.AbstractEventLoop | str] = {}

    async def serve() -> None:
        async with gateway_node() as node, real_worker(node):
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

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), st.booleans())
    def run(case: schemathesis.Case[Any], known_model: bool) -> None:
        if known_model and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "test-model"  # or few chats would get past its name
        case.call_and_validate(base_url=address, checks=CHECKS, timeout=20)

    run()
