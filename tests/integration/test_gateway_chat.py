# SPDX-License-Identifier: Apache-2.0
"""OpenAI's own client against a real front door and a real worker."""

import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from gpuwarden.gateway.access import Access, digest_of
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.real_worker import openai_client, real_worker
from tests.integration.test_gateway_and_worker import ct_image

MIB = 1 << 20
MODEL = "test-model"
PNG_URL = "data:image/png;base64,"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def data_url(image: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(image).decode()}"


def asking(text: str, *urls: str) -> list[Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}]


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[GatewayNode, openai.AsyncOpenAI]]:
    async with gateway_node() as node, real_worker(node, **settings), openai_client(node) as client:
        yield node, client


async def test_a_text_is_answered_to_openais_client() -> None:
    async with served() as (node, client):
        done = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "one two three"}]
        )
        assert done.object == "chat.completion"
        assert done.id.startswith("chatcmpl-")
        assert done.model == MODEL
        (choice,) = done.choices
        assert (choice.message.role, choice.message.content) == ("assistant", "one two three")
        assert choice.finish_reason == "stop"
        assert done.usage is not None
        assert (done.usage.prompt_tokens, done.usage.total_tokens) == (3, 6)
        assert [model.id async for model in client.models.list()] == [MODEL]
        await node.until(lambda: node.service.pool.in_use_bytes == 0)


@pytest.mark.parametrize("size", [1, 40_000, 70_000, 3 * MIB])
async def test_an_image_in_a_data_url_reaches_the_model_byte_for_byte(size: int) -> None:
    image = os.urandom(size)
    async with served() as (node, client):
        done = await client.chat.completions.create(
            model=MODEL, messages=asking("see", data_url(image)), max_tokens=100
        )
        assert done.choices[0].message.content == f"see {sha256(image)}"
        await node.until(lambda: node.service.pool.in_use_bytes == 0)


async def test_a_real_image_is_measured_through_the_chat() -> None:
    async with served(engine="imagestats") as (_, client):
        url = data_url(ct_image(), "application/dicom")
        done = await client.chat.completions.create(model=MODEL, messages=asking("?", url))
        answer = json.loads(done.choices[0].message.content or "")
        assert (answer["width"], answer["height"], answer["max"]) == (128, 128, 2191)


async def test_an_image_that_was_sent_once_is_asked_about_by_reference_again_and_again() -> None:
    images = [os.urandom(size) for size in (100, 200_000, 2 * MIB)]
    async with served() as (node, client):
        sent = [
            await node.post(image, path="/v1/images", media_type="image/png") for image in images
        ]
        assert [reply.status for reply in sent] == [201] * 3
        urls = [reply.json["url"] for reply in sent]
        for _ in range(2):
            done = await client.chat.completions.create(model=MODEL, messages=asking("see", *urls))
            digests = " ".join(sha256(image) for image in images)
            assert done.choices[0].message.content == f"see {digests}"
        for reply in sent:
            path = f"/v1/images/{reply.json['id']}"
            gone = await node.post(b"", path=path, method="DELETE", media_type=None)
            assert gone.json["deleted"] is True
        await node.until(lambda: node.service.pool.in_use_bytes == 0)
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model=MODEL, messages=asking("see", urls[0]))
        assert refused.value.type == "image_not_found"
        assert refused.value.param == "messages[0].content[1].image_url.url"


@pytest.mark.parametrize("size", [0, 3 * MIB])
async def test_an_answer_comes_word_by_word_to_who_streams(size: int) -> None:
    image = os.urandom(size)
    urls = [data_url(image)] if size else []
    async with served(options={"word_seconds": 0.1}) as (node, client):
        texts, usage, finish = [], None, None
        async for chunk in await client.chat.completions.create(
            model=MODEL,
            messages=asking("one two three", *urls),
            stream=True,
            stream_options={"include_usage": True},
        ):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts.append(choice.delta.content or "")
                finish = choice.finish_reason or finish
        expected = "one two three" + (f" {sha256(image)}" if size else "")
        assert "".join(texts) == expected
        assert len([text for text in texts if text]) >= 2  # on a busy machine some come together
        assert finish == "stop"
        assert usage is not None
        assert usage.completion_tokens == len(expected.split())
        await node.until(lambda: node.service.pool.in_use_bytes == 0)


async def test_a_model_that_does_not_tell_pieces_can_be_streamed_too() -> None:
    async with served(engine="imagestats") as (_, client):
        url = data_url(ct_image(), "application/dicom")
        texts = [
            choice.delta.content or ""
            async for chunk in await client.chat.completions.create(
                model=MODEL, messages=asking("?", url), stream=True
            )
            for choice in chunk.choices
        ]
        assert json.loads("".join(texts))["max"] == 2191


async def test_an_error_before_the_first_piece_is_json_though_it_was_to_be_a_stream() -> None:
    async with served(engine="imagestats") as (_, client):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await client.chat.completions.create(
                model=MODEL, messages=asking("?", data_url(b"no image")), stream=True
            )
        assert refused.value.type == "bad_image"


async def test_a_worker_that_dies_in_the_middle_of_an_answer_ends_it_with_an_error_event() -> None:
    slow = {"word_seconds": 30.0}
    async with (
        gateway_node() as node,
        openai_client(node) as client,
        real_worker(node, options=slow) as doomed,
    ):
        texts = []
        stream = await client.chat.completions.create(
            model=MODEL, messages=asking("one two three"), stream=True
        )
        with pytest.raises(openai.APIError) as broken:
            async for chunk in stream:
                texts.append(chunk.choices[0].delta.content or "")
                if texts[-1]:
                    doomed.process.kill()
        assert "".join(texts) == "one "
        assert broken.value.type == "worker_crashed"


async def test_who_stops_reading_a_stream_sets_the_model_free() -> None:
    async with served(options={"word_seconds": 0.02}) as (node, client):
        words = " ".join(["word"] * 10_000)
        stream = await client.chat.completions.create(
            model=MODEL, messages=asking(words), stream=True
        )
        async for _ in stream:
            break
        await stream.close()
        done = await client.chat.completions.create(model=MODEL, messages=asking("next"))
        assert done.choices[0].message.content == "next"
        assert node.service.dispatcher.statistics.cancelled == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": asking("?", "http://pacs/1.png")}, "messages[0].content[1].image_url.url"),
    ({"messages": asking("?", f"{PNG_URL}AAA")}, "messages[0].content[1].image_url.url"),
    ({"messages": asking("?", f"{PNG_URL}AA!A")}, "messages[0].content[1].image_url.url"),
    (
        {"messages": asking("?", "data:image/tiff;base64,AAAA")},
        "messages[0].content[1].image_url.url",
    ),
    ({"temperature": 3}, "temperature"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"n": 2}, "n"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"extra_body": {"temprature": 1}}, "temprature"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"model": "gpt-4o"}, "model"),
    ({"model": "gpt-4o", "messages": asking("?", data_url(bytes(3 * MIB)))}, "model"),
]


async def refusal(node: GatewayNode, image: bytes = b"", **options: Any) -> openai.APIError:
    """What OpenAI's client raises for a chat."""
    async with openai_client(node) as client:
        urls = [data_url(image)] if image else []
        with pytest.raises(openai.APIError) as refused:
            await client.with_options(**options).chat.completions.create(
                model=MODEL, messages=asking("?", *urls)
            )
    return refused.value


async def test_errors_reach_openais_client_as_the_exceptions_that_it_has_for_them() -> None:
    foreign, proxied = {"Origin": "http://elsewhere"}, {"X-Forwarded-For": "10.1.1.1"}
    key = Access((digest_of(b"k" * 32),))
    async with gateway_node(grace_seconds=0, body_limit_bytes=MIB) as node:
        away = await refusal(node)
        assert isinstance(away, openai.InternalServerError)
        assert (away.status_code, away.type) == (503, "unavailable")
        assert isinstance(
            await refusal(node, default_headers=foreign), openai.PermissionDeniedError
        )
        node.service._routes.access = key
        assert isinstance(await refusal(node, default_headers=proxied), openai.AuthenticationError)
        too_large = await refusal(node, bytes(2 * MIB))
        assert isinstance(too_large, openai.APIStatusError)
        assert (too_large.status_code, too_large.param) == (413, "body")
        async with real_worker(node, engine="imagestats"):
            assert isinstance(await refusal(node), openai.BadRequestError)
            bad = await refusal(node, b"no image")
            assert isinstance(bad, openai.UnprocessableEntityError)
            assert (bad.type, bad.param) == ("bad_image", "messages")
        async with real_worker(node, options={"delay_seconds": 30.0}):
            assert isinstance(await refusal(node, timeout=0.2), openai.APITimeoutError)
    async with gateway_node(uploads_limit=1) as node:
        await node.worker()
        _, writer = await node.connect()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        await node.until(lambda: node.service.dispatcher.queue.depth == 1)
        full = await refusal(node)
        assert isinstance(full, openai.RateLimitError)
        assert full.response.headers["retry-after"] == "1"
        writer.close()


async def test_what_is_wrong_with_a_request_is_named() -> None:
    async with served() as (_, client):
        for changes, param in WRONG:
            request: dict[str, Any] = {"model": MODEL, "messages": asking("?")} | changes
            with pytest.raises(openai.APIStatusError) as refused:
                await client.chat.completions.create(**request)
            assert refused.value.status_code in {400, 404, 422}
            assert (refused.value.param, changes) == (param, changes)
