# SPDX-License-Identifier: Apache-2.0
"""Large results: from a real worker process, through a lent buffer, to the caller."""

import asyncio
import json
from typing import Any

import pytest

from tests.integration.gateway_node import GatewayNode, Reply, gateway_node
from tests.integration.model_classes import filling, nested
from tests.integration.real_worker import openai_client, real_worker

MIB = 1 << 20
JSON = "application/json"
FILLING = {"engine": "model_classes:Filling"}


async def ask(node: GatewayNode, question: str, **headers: str) -> Reply:
    path = f"/predict?question={question.replace(' ', '%20')}"
    return await node.post(b"image", path=path, headers=headers)


async def nothing_is_held(node: GatewayNode) -> None:
    pool = node.service.dispatcher.lending.pool
    await node.until(lambda: pool.in_use_bytes == 0)
    assert not any(link.loans for link in node.service.dispatcher.links.values())


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5 * MIB + 3])
async def test_a_file_comes_back_byte_for_byte_with_its_type_and_the_answer_beside_it(
    size: int,
) -> None:
    async with gateway_node() as node, real_worker(node, **FILLING):
        reply = await ask(node, f"image/png {size}")
        assert reply.status == 200
        assert reply.body == filling(size)
        assert reply.headers["content-type"] == "image/png"
        assert reply.headers["x-content-type-options"] == "nosniff"
        beside = json.loads(reply.headers["x-gpuwarden-result"])
        assert beside["answer"] == {"bytes": size}
        assert (beside["model"], beside["worker"]) == ("test-model", 0)
        await nothing_is_held(node)


@pytest.mark.parametrize("size", [90_000, 98_304, 3 * MIB])
async def test_a_large_answer_looks_like_a_small_one(size: int) -> None:
    async with gateway_node() as node, real_worker(node, **FILLING):
        reply = await ask(node, f"json {size}")
        assert reply.status == 200
        assert reply.json["answer"] == {"filling": "é" * (size // 6)}
        assert list(reply.json) == ["answer", "model", "worker", "seconds"]
        await nothing_is_held(node)


async def test_an_answer_that_is_nested_too_deeply_fails_by_name_everywhere() -> None:
    async with gateway_node() as node, real_worker(node, **FILLING):
        chat = {"model": "test-model", "messages": [{"role": "user", "content": "levels 800"}]}
        failed = [
            await ask(node, "levels 800"),
            await node.post(
                json.dumps(chat).encode(), path="/v1/chat/completions", media_type=JSON
            ),
        ]
        assert {(one.status, one.error) for one in failed} == {(500, "engine_error")}
        job = await node.post(b"image", path="/v1/jobs?question=levels%20800")
        ended = (await node.get(f"/v1/jobs/{job.json['id']}?wait=8")).json
        assert (ended["status"], ended["error"]["type"]) == ("failed", "engine_error")
        texts = [one.json["error"]["message"] for one in failed] + [ended["error"]["message"]]
        assert all("nested more than 100 levels" in text for text in texts)
        assert (await ask(node, "levels 100")).json["answer"] == nested(100)


async def test_a_large_result_after_a_large_image_and_then_the_same_connection_again() -> None:
    image = filling(3 * MIB)
    async with (
        gateway_node() as node,
        real_worker(node, engine="echo", options={"return_body": True}),
    ):
        replies = await asyncio.gather(*(node.post(image, media_type="image/png") for _ in "1234"))
        assert [reply.body == image for reply in replies] == [True] * 4
        assert {reply.headers["connection"] for reply in replies} == {"close"}
        await nothing_is_held(node)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_takes_a_long_text_whole_and_in_pieces(stream: bool) -> None:
    size = 600_000
    chat: dict[str, Any] = {
        "model": "test-model",
        "messages": [{"role": "user", "content": f"text {size}"}],
        "stream": stream,
    }
    async with (
        gateway_node() as node,
        real_worker(node, **FILLING),
        openai_client(node) as client,
    ):
        if stream:
            pieces = [
                chunk.choices[0].delta.content or ""
                async for chunk in await client.chat.completions.create(**chat)
            ]
            text = "".join(pieces)
        else:
            answer = await client.chat.completions.create(**chat)
            text = answer.choices[0].message.content
            assert answer.usage.completion_tokens == 7
        assert text == "é" * (size // 6)
        await nothing_is_held(node)
