# SPDX-License-Identifier: Apache-2.0
"""What the front door makes of what workers say of their memory."""

from functools import partial
from typing import Any

import pytest

from gpuwarden.control.memory import MemoryHistory
from gpuwarden.control.snapshot import read_snapshot
from gpuwarden.gateway import memory
from gpuwarden.systemd.events import Event, follow, unfollow
from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.gateway_peer import GatewayPeer

FULL = {"reserved_bytes": 95, "allocated_bytes": 40, "limit_bytes": 100, "warning_threshold": 0.8}


def say(peer: GatewayPeer, **figures: Any) -> None:
    peer.send(Frame(FrameType.FIGURES, meta=figures))


def has_heard(node: GatewayNode, reserved_bytes: int) -> bool:
    figures = links(node)[0].figures
    return figures is not None and figures.reserved_bytes == reserved_bytes


async def next_of(peer: GatewayPeer, kind: FrameType) -> Frame:
    while True:
        frame = await peer.next_frame()
        if frame.type == kind:
            return frame


def links(node: GatewayNode) -> list[Any]:
    return list(node.service.dispatcher.links.values())


async def test_a_worker_over_its_threshold_is_asked_to_drop_its_caches_and_that_is_told() -> None:
    told: list[tuple[Event, str]] = []

    def note(event: Event, message: str, *_: object) -> None:
        told.append((event, message))

    follow(note)
    try:
        async with gateway_node() as node:
            peer = await node.worker()
            say(peer, **FULL)
            await next_of(peer, FrameType.RELIEVE)
            text = "worker 0: it holds 95% of its share of GPU 0: its caches are dropped"
            assert told[-1] == (Event.WORKER_MEMORY_REMEDY, text)
            await node.until(lambda: any(one.vram for one in node.snapshot().workers))
            (published,) = node.snapshot().workers
            assert published.vram is not None
            assert (published.vram.remedy, published.vram_allocated_bytes) == ("caches", 40)
    finally:
        unfollow(note)


async def test_a_worker_that_ran_out_is_given_less_also_when_it_connects_again() -> None:
    async with gateway_node() as node:
        peer = await node.worker(auto=False)
        say(peer, shortages=1)
        assert (await next_of(peer, FrameType.LIMIT)).meta["batch_limit"] == 2
        assert node.service.dispatcher.batch_size(links(node)[0]) == 2
        await node.until(lambda: node.snapshot().batch_limits == {0: 2})
        peer.close()
        await node.until(lambda: not links(node))
        again = await node.worker(auto=False)
        say(again, shortages=1)
        assert (await next_of(again, FrameType.LIMIT)).meta["batch_limit"] == 2


async def test_a_ceiling_and_heat_together_leave_the_lower_of_both() -> None:
    async with gateway_node() as node:
        peer = await node.worker(auto=False, max_batch=8)
        say(peer, shortages=1)
        assert (await next_of(peer, FrameType.LIMIT)).meta["batch_limit"] == 4
        node.guards.publish(0, batch_limit=3)
        assert (await next_of(peer, FrameType.LIMIT)).meta["batch_limit"] == 3
        node.guards.publish(0, batch_limit=6)
        assert (await next_of(peer, FrameType.LIMIT)).meta["batch_limit"] == 4


@pytest.mark.parametrize(
    "wrong",
    [{"reserved_bytes": -1}, {"num_ooms": 1 << 63}, {"warning_threshold": 0}, {"shortages": "x"}],
)
async def test_figures_that_are_none_end_the_connection(wrong: dict[str, Any]) -> None:
    async with gateway_node() as node:
        peer = await node.worker()
        say(peer, **wrong)
        await node.until(peer.closed.is_set)
        assert links(node) == []


async def test_an_hour_is_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROW_SECONDS", 0.0)
    async with gateway_node() as node:
        peer = await node.worker()
        for number in range(memory.ROWS + 80):
            say(peer, reserved_bytes=number, allocated_bytes=0)
            if number % 100 == 99:  # as fast as the front door takes them
                await node.until(partial(has_heard, node, number))
        last = memory.ROWS + 79
        await node.until(partial(has_heard, node, last))
        file = node.state_path.with_name("memory.json")
        (series,) = read_snapshot(file, MemoryHistory).data.workers
        assert series.reserved_bytes == list(range(80, last + 1))


async def test_a_history_that_can_not_be_written_is_logged_once_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "ROW_SECONDS", 0.0)
    async with gateway_node() as node:
        peer = await node.worker()
        node.state_path.with_name(".memory.json.tmp").mkdir()
        for number in range(3):
            say(peer, reserved_bytes=number, allocated_bytes=0)
        await node.until(partial(has_heard, node, 2))
        assert (await node.post(b"image")).status == 200
        node.state_path.with_name(".memory.json.tmp").rmdir()
    assert caplog.text.count("memory.json can't be written") == 1
