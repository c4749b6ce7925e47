# SPDX-License-Identifier: Apache-2.0
"""A real worker process at a real front door, and OpenAI's own client before it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai

from tests.integration.gateway_node import DEADLINE_SECONDS, GatewayNode
from tests.integration.worker_peer import Worker, close_node, make_node


@asynccontextmanager
async def real_worker(node: GatewayNode, **settings: Any) -> AsyncIterator[Worker]:
    """The worker's own host process, connected to this front door and ready."""
    home = make_node()
    number = settings.get("number", 0)
    loading_seconds = settings.pop("loading_seconds", DEADLINE_SECONDS)
    loop = asyncio.get_running_loop()
    loop.add_reader(home.notify, home.told_so_far)  # as systemd does; nobody would wait for it
    try:
        async with home.worker(dispatch_socket=str(node.dispatch_path), **settings) as worker:
            await node.until(
                lambda: (
                    any(link.number == number for link in node.ready_links())
                    or worker.process.returncode is not None  # of a request that waited for it
                ),
                loading_seconds,
            )
            yield worker
    finally:
        loop.remove_reader(home.notify)
        close_node(home)


@asynccontextmanager
async def openai_client(node: GatewayNode) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client, led to this front door."""
    url = f"http://127.0.0.1:{node.port}/v1"
    async with openai.AsyncOpenAI(
        base_url=url, api_key="not needed here", max_retries=0, timeout=20
    ) as client:
        yield client
