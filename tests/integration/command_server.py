# SPDX-License-Identifier: Apache-2.0
"""A worker whose model is a server of OpenAI's form, behind a front door."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai

from gpuwarden.worker.engines.command.upstream import asked
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.real_worker import openai_client, real_worker
from tests.integration.worker_peer import DEADLINE_SECONDS, Worker, children_of

SERVER = str(Path(__file__).parent / "openai_server.py")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def command_settings(*arguments: str, **options: Any) -> dict[str, Any]:
    """A worker's settings for the server; its number is 0, so the port is as it is said."""
    command = [sys.executable, "-I", SERVER, "--port", "{port}", *arguments]
    return {
        "engine": "command",
        "max_batch": options.pop("max_batch", 4),
        "options": {"command": command, "port": free_port(), **options},
    }


async def seen(port: int) -> list[dict[str, Any]]:
    """What the server was asked so far."""
    async with asked(port, "GET", "/seen") as answer:
        found: list[dict[str, Any]] = json.loads(await answer.whole(1 << 20))
        return found


@asynccontextmanager
async def serving(
    *arguments: str, settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[GatewayNode, openai.AsyncOpenAI, Worker, int]]:
    whole = command_settings(*arguments, **options) | (settings or {})
    async with (
        gateway_node() as node,
        real_worker(node, **whole) as worker,
        openai_client(node) as client,
    ):
        yield node, client, worker, whole["options"]["port"]


async def ask(client: openai.AsyncOpenAI, content: Any, **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": content}]
    whole = {"model": "test-model", "messages": messages, **more}
    return await client.chat.completions.create(**whole)


async def answers_when(port: int, condition: Any) -> list[dict[str, Any]]:
    """What the server was asked, as soon as that fulfils a condition."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition(found := await seen(port)):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.02)
        return found


def server_of(worker: Worker) -> int:
    """The server's process."""
    (found,) = [pid for pid in children_of(worker.pid) if SERVER in command_of(pid)]
    return found


def command_of(pid: int) -> str:
    """A process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
