# SPDX-License-Identifier: Apache-2.0
"""Eco by order over HTTP: a lease, on top of what the thermal guards say."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds
from gpuwarden.gateway.ecolease import LEASE_SECONDS, EcoLease
from gpuwarden.gateway.ecomode import LEASE_FILE, ORDERS, EcoMode
from gpuwarden.gateway.work import CardLimits
from tests.integration.gateway_node import GatewayNode, Reply, gateway_node, read_reply
from tests.integration.gateway_process import ready_by_hand

FORM = "application/x-www-form-urlencoded"


async def order(node: GatewayNode, mode: str) -> Reply:
    return await node.post(
        b"", path=f"/api/thermal_mode?mode={mode}", media_type=None, headers={"Connection": "close"}
    )


def limits(node: GatewayNode, card: int = 0) -> CardLimits:
    return node.service.dispatcher.queue.cards[card].limits


def lease(seconds: float, boot: str = "") -> str:
    until = boottime_nanoseconds() + int(seconds * 1e9)
    return EcoLease(boot_id=boot or boot_id(), until_boottime_nanoseconds=until).model_dump_json()


async def test_eco_is_one_request_at_a_time_until_normal_is_ordered() -> None:
    async with gateway_node() as node:
        await node.worker(max_batch=4)
        shown = await node.get("/api/thermal_mode")
        assert shown.json == {"mode": "normal", "seconds_left": None, "limited_by_heat": False}
        begun = await order(node, "eco")
        assert (begun.json["mode"], begun.json["seconds_left"]) == ("eco", 900)
        assert limits(node) == CardLimits(batch_limit=1)
        ended = await order(node, "normal")
        assert ended.json["mode"] == "normal"
        assert limits(node) == CardLimits()


async def test_a_lease_ends_by_itself_and_a_second_order_prolongs_it() -> None:
    async with gateway_node() as node:
        await node.worker()
        node.service.eco._lease_seconds = 0.2
        for _ in range(2):
            await order(node, "eco")
            assert limits(node).batch_limit == 1
        await node.until(lambda: limits(node) == CardLimits())


async def test_a_lease_goes_on_in_the_next_process_with_what_is_left_of_it() -> None:
    async with gateway_node() as node:
        await node.worker(max_batch=4)
        await order(node, "eco")
        file = node.state_path.with_name(LEASE_FILE)
        assert file.stat().st_mode & 0o777 == 0o600
        later = EcoMode(node.service.eco.limit, file)
        left = later.seconds_left
        assert left is not None
        assert 890 < left <= 900
        later.close()
        await order(node, "normal")
        assert not file.exists()
        assert EcoMode(node.service.eco.limit, file).seconds_left is None


async def test_a_lease_that_can_not_be_believed_is_none() -> None:
    async with gateway_node() as node:
        await order(node, "eco")
        whole = node.state_path.with_name(LEASE_FILE).read_text()
        file = node.state_path.with_name("other.json")
        for text in (
            "",
            whole[:-9],
            "[]",
            lease(-1),
            lease(LEASE_SECONDS + 60),
            lease(60, "other"),
        ):
            file.write_text(text)
            assert EcoMode(node.service.eco.limit, file).seconds_left is None, text
        file.write_text(lease(60))
        known = EcoMode(node.service.eco.limit, file)
        assert known.seconds_left is not None
        known.close()


async def test_eco_holds_though_its_lease_can_not_be_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with gateway_node() as node:
        await node.worker(max_batch=4)
        node.service.eco._file = node.state_path / "no-folder" / LEASE_FILE
        assert (await order(node, "eco")).status == 200
        assert limits(node).batch_limit == 1
        assert "eco ends with this process" in caplog.text


async def test_eco_outlives_the_process_that_took_the_order(tmp_path: Path) -> None:
    (tmp_path / LEASE_FILE).write_text(lease(60))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with ready_by_hand(tmp_path, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/thermal_mode HTTP/1.1\r\nHost: localhost\r\n\r\n")
        shown = (await read_reply(reader)).json
        writer.close()
    assert shown["mode"] == "eco"
    assert 0 < shown["seconds_left"] <= 60
    assert (tmp_path / LEASE_FILE).exists()


async def test_normal_never_lifts_what_a_thermal_guard_says() -> None:
    async with gateway_node() as node:
        await node.worker(max_batch=4)
        node.guards.publish(0, state="alert", batch_limit=2, dispatch_duty=0.5)
        await node.until(lambda: limits(node) == CardLimits(2, 0.5))
        assert (await order(node, "normal")).json["limited_by_heat"] is True
        assert limits(node) == CardLimits(2, 0.5)
        await order(node, "eco")
        assert limits(node) == CardLimits(1, 0.5)
        node.guards.publish(0)
        await node.until(lambda: limits(node) == CardLimits(1, 1.0))
        await order(node, "normal")
        assert limits(node) == CardLimits()


async def test_orders_are_rate_limited_and_who_asks_in_a_loop_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with gateway_node() as node:
        for number in range(ORDERS):
            assert (await order(node, ("eco", "normal")[number % 2])).status == 200
        for _ in range(5):
            refused = await order(node, "eco")
            assert (refused.status, refused.error) == (429, "rate_limited")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert sum("refused" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("media_type", "body"), [(FORM, b"mode=eco"), ("application/json", b'{"mode": "eco"}')]
)
async def test_an_order_may_be_a_form_or_json(media_type: str, body: bytes) -> None:
    async with gateway_node() as node:
        reply = await node.post(body, path="/api/thermal_mode", media_type=media_type)
        assert (reply.status, reply.json["mode"]) == (200, "eco")


@pytest.mark.parametrize(
    ("query", "media_type", "body"),
    [
        ("", None, b""),
        ("?mode=hot", None, b""),
        ("?mode=eco&mode=normal", None, b""),
        ("?mode=eco", FORM, b"mode=eco"),
        ("", FORM, b"mode=eco&mode=eco"),
        ("", FORM, b"mood=eco"),
        ("", "application/json", b'["eco"]'),
        ("", "application/json", json.dumps({"mode": ["eco"]}).encode()),
        ("", "application/json", b"[" * 3000),
        ("?modes=eco", None, b""),
    ],
)
async def test_what_is_no_order_is_refused(query: str, media_type: str | None, body: bytes) -> None:
    async with gateway_node() as node:
        reply = await node.post(body, path=f"/api/thermal_mode{query}", media_type=media_type)
        assert (reply.status, reply.error) == (400, "invalid_request")
        assert node.service.eco.seconds_left is None
