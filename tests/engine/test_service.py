# SPDX-License-Identifier: Apache-2.0
"""The front door, a worker's own process and this engine: what a caller gets."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.engine.driving import asked, generated, png
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.real_worker import openai_client, real_worker
from tests.integration.worker_peer import Worker

LIMIT = 30
# The first import of the libraries in a new environment, on a machine that makes nodes besides.
LOADING_SECONDS = 240.0


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[GatewayNode, Worker, Any]]:
    options = {"path": str(folder), "torch_dtype": "float32", "cache_tokens": 256}
    async with (
        gateway_node() as node,
        real_worker(
            node,
            engine="transformers",
            options=options,
            max_batch=3,
            loading_seconds=LOADING_SECONDS,
        ) as worker,
        openai_client(node) as client,
    ):
        yield node, worker, client


def question(text: str, image: int | None = None) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if image is not None:
        url = "data:image/png;base64," + base64.b64encode(png(image)).decode()
        parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return {"model": "test-model", "messages": [{"role": "user", "content": parts}]}


async def test_callers_together_get_what_each_gets_alone(gemma3: Path) -> None:
    async with serving(gemma3) as (node, worker, client):
        whole, streamed, refused = await asyncio.gather(
            client.chat.completions.create(**question("What is it?", 2), max_tokens=LIMIT),
            text_of_stream(client, **question("How are you?"), max_tokens=LIMIT),
            refusal(client, **question("And this?", 1), max_tokens=1_000_000),
        )
        assert whole.choices[0].message.content == text_of(gemma3, "What is it?", 2)
        assert whole.usage.completion_tokens == LIMIT
        made_by = whole.model_extra["gpuwarden"]
        assert (made_by["engine"], made_by["thermal_state"]) == ("transformers", "normal")
        assert streamed == (text_of(gemma3, "How are you?"), made_by)
        assert refused.param == "max_tokens"
        reply = await node.post(png(2), media_type="image/png")
        assert reply.json["answer"]["usage"]["prompt_tokens"] > 0
        assert "What is it?" not in worker.log()


async def text_of_stream(client: openai.AsyncOpenAI, **wanted: Any) -> tuple[str, Any]:
    stream = await client.chat.completions.create(**wanted, stream=True)
    pieces, made_by = [], None
    async for chunk in stream:
        pieces.append(chunk.choices[0].delta.content or "")
        made_by = (chunk.model_extra or {}).get("gpuwarden", made_by)
    assert len(pieces) > LIMIT // 2
    return "".join(pieces), made_by


async def refusal(client: openai.AsyncOpenAI, **wanted: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**wanted)
    return caught.value


def text_of(folder: Path, text: str, image: int | None = None) -> str:
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow, and only here

    tokens = generated(folder, asked(text, image, max_tokens=LIMIT))
    found: str = AutoTokenizer.from_pretrained(folder).decode(tokens, skip_special_tokens=True)
    return found
