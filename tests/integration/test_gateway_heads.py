# SPDX-License-Identifier: Apache-2.0
"""Heads that the short way knows: each is right for its own request, by the rules of now."""

from dataclasses import replace
from typing import Any

from tests.integration.gateway_node import Reply, gateway_node, read_reply
from tests.integration.short_way import connections, request, taken


async def test_a_head_that_was_right_before_is_checked_again_by_other_rules() -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        for _ in range(3):
            writer.write(request())
            assert (await read_reply(reader)).status == 200
        limits = node.service.dispatcher.settings
        node.service.dispatcher.apply(replace(limits, body_limit_bytes=4))
        writer.write(request())
        assert (await read_reply(reader)).status == 413
        node.service.dispatcher.apply(limits)
        node.service._routes.header_limit_bytes = 10
        writer.write(request())
        assert (await read_reply(reader)).status == 431
        node.service._routes.header_limit_bytes = limits.header_limit_bytes
        writer.write(request())
        assert (await read_reply(reader)).status == 200
        assert taken(node) == 6
        writer.close()


async def test_one_heads_right_is_not_anothers() -> None:
    async with gateway_node() as node:
        await node.worker()
        reader, writer = await node.connect()
        heads = ("", "Via: proxy\r\n", "", "Origin: http://localhost\r\n", "")
        for more in heads:
            writer.write(request(more=more))
            assert (await read_reply(reader)).status == (403 if more else 200)
        assert taken(node) == len(heads)
        writer.close()


async def test_a_head_that_is_known_is_not_parsed_again_and_the_rest_is() -> None:
    async with gateway_node() as node:
        worker = await node.worker()
        reader, writer = await node.connect()
        parsed: list[bytes] = []

        async def asked(data: bytes, cut: int = 0) -> Reply:
            if cut:
                before = len(parsed)
                writer.write(data[:cut])
                await node.until(lambda: len(parsed) > before)  # in a segment of its own
            writer.write(data[cut:])
            return await read_reply(reader)

        await asked(request(b"first"))
        (connection,) = connections(node)
        feed = connection._parser.feed_data

        def watched(data: bytes) -> Any:
            parsed.append(data)
            return feed(data)

        connection._parser.feed_data = watched
        bodies = [b"other", b"third"]
        answers = [(await asked(request(body))).json["answer"] for body in bodies]
        assert len({one["sha256"] for one in answers}) == 2
        assert parsed == []
        longer = request(b"longer")
        assert (await asked(longer)).status == 200
        assert (await asked(request(b"longer", path="/predict?when=now"))).status == 400
        assert (await asked(longer)).status == 200
        assert len(parsed) == 2  # the last one that passed is still the known one
        assert (await asked(longer, cut=30)).status == 200
        assert (await asked(longer)).status == 200
        assert len(parsed) == 5  # cut once, never sure again
        assert connection.taken == 8
        assert worker.jobs.empty()
        writer.close()
