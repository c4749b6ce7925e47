# SPDX-License-Identifier: Apache-2.0
"""Requests to a real server of OpenAI's form, behind a real front door."""

import asyncio
import base64
from typing import Any

import openai
import pytest

from tests.integration.command_server import answers_when, ask, seen, serving
from tests.integration.worker_peer import is_running

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR\0\0\0\1\0\0\0\1" + bytes(20)


async def test_a_chat_goes_to_the_server_and_comes_back_whole_and_in_pieces() -> None:
    async with serving(served_model="inner", request_fields='{"top_k": 7}') as (_, client, _, port):
        answer = await ask(client, "say 3", temperature=0.5, max_completion_tokens=9)
        assert answer.choices[0].message.content == "0 1 2 "
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens == 3
        stream = await ask(client, "slow 20", stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces).split() == [str(n) for n in range(20)]
        assert len([piece for piece in pieces if piece]) > 5
        (first, _) = [each["body"] for each in await seen(port)]
        assert (first["model"], first["top_k"], first["temperature"]) == ("inner", 7, 0.5)
        assert first["max_completion_tokens"] == 9
        assert (await ask(client, "whole")).choices[0].finish_reason == "length"


async def test_images_reach_the_server_as_data_urls_however_they_came() -> None:
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    async with serving() as (node, client, _, port):
        stored = (await node.post(PNG, path="/v1/images", media_type="image/png")).json["url"]
        for given in (url, stored):
            image = {"type": "image_url", "image_url": {"url": given}}
            answer = await ask(client, [{"type": "text", "text": "what is it?"}, image])
            assert answer.choices[0].message.content == "what is it?"
        reply = await node.post(PNG, path="/predict?question=and+this")
        assert reply.json["answer"]["text"] == "and this"
        for record in await seen(port):
            assert record["body"]["messages"][0]["content"][1]["image_url"]["url"] == url
        refused = await node.post(bytes(128) + b"DICM", media_type="application/dicom")
        assert (refused.status, refused.error) == (422, "bad_image")


REFUSALS = [
    ("status 400 this is too long", 400, "invalid_request", "this is too long"),
    ("status 404 no such model", 400, "invalid_request", "no such model"),
    ("status 401 who are you", 500, "engine_error", "refuses this worker"),
    ("status 500 oh dear", 500, "engine_error", "oh dear"),
    ("status 503 full", 503, "unavailable", "full"),
    ("garbage", 500, "engine_error", "no HTTP"),
    ("close", 500, "engine_error", "closed the connection without an answer"),
    ("break 0", 500, "engine_error", "broke off"),
    ("fail 0", 500, "engine_error", "the engine is dead"),
]


async def test_what_goes_wrong_reaches_its_own_caller_alone() -> None:
    async with serving(max_batch=16) as (_, client, worker, _):

        async def refusal(question: str) -> openai.APIStatusError:
            with pytest.raises(openai.APIStatusError) as caught:
                await ask(client, question)
            return caught.value

        beside = asyncio.create_task(ask(client, "slow 100"))
        found = await asyncio.gather(*(refusal(question) for question, *_ in REFUSALS))
        for error, (_, status, kind, message) in zip(found, REFUSALS, strict=True):
            assert (error.status_code, error.type) == (status, kind)
            assert message in error.message
        assert len((await beside).choices[0].message.content.split()) == 100
        assert is_running(worker.pid)


async def test_an_answer_that_breaks_off_tells_who_streams() -> None:
    async with serving() as (_, client, _, _):
        for question in ("break 2", "fail 2"):
            heard = []
            with pytest.raises(openai.APIError):
                async for chunk in await ask(client, question, stream=True):
                    heard.append(chunk.choices[0].delta.content or "")
            assert "".join(heard) == "0 1 "


async def test_nothing_that_was_asked_reaches_the_log_but_what_it_said_when_it_started() -> None:
    async with serving(environment=["GREETING=hello {max_batch}"]) as (_, client, worker, _):
        await ask(client, "Jane Roe")
        with pytest.raises(openai.InternalServerError):
            await ask(client, "status 500 Jane Roe")
        assert "starts with hello 4" in worker.log()
        assert "Jane Roe" not in worker.log()


async def test_as_many_run_as_there_is_room_for_and_a_hot_card_gets_fewer() -> None:
    path = "/api/thermal_mode?mode={mode}"
    async with serving(thermal_path=path, max_batch=3) as (node, client, _, port):
        asking = [asyncio.create_task(ask(client, "hang")) for _ in range(3)]
        await answers_when(port, lambda found: count("waits", found) == 3)
        asking += [asyncio.create_task(ask(client, "hang")) for _ in range(2)]
        await node.until(lambda: len(node.service.dispatcher.queue.requests) == 5)
        node.guards.publish(0, batch_limit=1)
        await answers_when(port, lambda found: found[-1]["path"].endswith("mode=eco"))
        for task in asking[:3]:
            task.cancel()
        found = await answers_when(port, lambda found: count("waits", found) > 3)
        assert (count("waits", found), count("gone", found)) == (4, 3)
        node.guards.publish(0)
        await answers_when(port, lambda found: count("waits", found) == 5)
        assert [each["path"] for each in await seen(port)].count("/api/thermal_mode?mode=normal")
        for task in asking:
            task.cancel()


def count(what: str, found: list[dict[str, Any]]) -> int:
    return sum(bool(each.get(what)) for each in found)


async def test_what_the_server_says_of_itself_is_shown() -> None:
    async with serving() as (node, _, _, _):
        await node.until(lambda: any(each.server for each in node.snapshot().workers))
        (worker,) = node.snapshot().workers
        assert worker.server is not None
        assert (worker.server.waiting, worker.server.kv_cache_usage) == (2, 0.25)
        text = (await node.get("/metrics")).body.decode()
        assert 'worker_server_requests{state="waiting",worker="0"} 2.0' in text
        assert 'worker_server_kv_cache_usage{worker="0"} 0.25' in text


async def test_who_takes_too_long_fails_alone_before_the_worker_counts_as_stuck() -> None:
    settings = {"execution_timeout_seconds": 1.0}
    async with serving(settings=settings) as (_, client, worker, port):
        beside = asyncio.create_task(ask(client, "say 1"))
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(client, "hang")
        assert (caught.value.status_code, caught.value.type) == (504, "execution_timeout")
        await answers_when(port, lambda found: count("gone", found) == 1)
        assert (await beside).choices[0].message.content == "0 "
        assert "stuck" not in worker.log()
