# SPDX-License-Identifier: Apache-2.0
# Workers that the guard wants idle: no request is lost, whoever else is there.

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.control.socket import ControlError, ask_async
from tests.integration.gateway_node import GatewayNode, gateway_node


class Guarded:
    """A gateway and its control socket."""

    def __init__(self, node: GatewayNode, control: Path) -> None:
        self.node = node
        self._control = control

    async def ask(self, name: str, **fields: Any) -> int:
        answer = await ask_async(self._control, {"request": name, **fields}, 10)
        return int(answer["unanswered"])


@asynccontextmanager
async def guarded() -> AsyncIterator[Guarded]:
    with tempfile.TemporaryDirectory(prefix="drain") as name:
        path = Path(name, "control.sock")
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.bind(str(path))
        control.listen()
        async with gateway_node(control=[control]) as node:
            yield Guarded(node, path)


async def test_a_drained_worker_finishes_what_it_has_and_gets_nothing_new() -> None:
    async with guarded() as gateway:
        node = gateway.node
        first = await node.worker(0, auto=False)
        running = asyncio.create_task(node.post(b"one"))
        lease = await first.next_job()
        drained = asyncio.create_task(gateway.ask("drain", number=0, seconds=10))
        await node.until(lambda: node.service.dispatcher.drained == {0})
        await node.worker(1)
        assert (await node.post(b"two")).status == 200
        assert not drained.done()
        first.answer(lease)
        assert (await running).status == 200
        assert await drained == 0
        await node.until(lambda: node.snapshot().drained == [0])
        assert [one.state for one in node.snapshot().workers] == ["draining", "ready"]
        assert node.snapshot().workers_active == 1


async def test_what_a_drained_worker_has_not_begun_goes_to_another_one() -> None:
    async with guarded() as gateway:
        node = gateway.node
        first = await node.worker(0, auto=False, max_batch=1)
        asked = [asyncio.create_task(node.post(b"x")) for _ in range(2)]
        running, waiting = await first.next_job(), await first.next_job()
        await node.worker(1)
        assert await gateway.ask("drain", number=0) == 1
        await node.until(lambda: node.service.dispatcher.statistics.completed == 1)
        first.answer(running)
        first.fail(waiting, "returned")
        assert [(await one).status for one in asked] == [200, 200]


async def test_the_last_worker_finishes_all_that_was_accepted_and_nothing_more_is() -> None:
    async with guarded() as gateway:
        node = gateway.node
        only = await node.worker(0, auto=False, max_batch=1)
        accepted = [asyncio.create_task(node.post(b"x")) for _ in range(4)]
        await node.until(lambda: node.service.dispatcher.queue.depth == 2)
        drained = asyncio.create_task(gateway.ask("drain", number=0, seconds=10))
        await node.until(lambda: node.service.dispatcher.drained == {0})
        await node.until(lambda: node.service.dispatcher.drained == {0})
        refused = await node.post(b"late")
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        for _ in range(4):
            only.answer(await only.next_job())
        assert [(await one).status for one in accepted] == [200] * 4
        assert await drained == 0


async def test_time_ends_the_wait_and_not_the_order() -> None:
    async with guarded() as gateway:
        worker = await gateway.node.worker(0, auto=False)
        running = asyncio.create_task(gateway.node.post(b"x"))
        lease = await worker.next_job()
        assert await gateway.ask("drain", number=0, seconds=0.05) == 1
        assert gateway.node.service.dispatcher.drained == {0}
        worker.answer(lease)
        assert (await running).status == 200


async def test_the_order_holds_for_the_next_life_until_it_is_taken_back() -> None:
    async with guarded() as gateway:
        node = gateway.node
        assert await gateway.ask("drain", number=0) == 0
        await node.worker(1)
        assert await gateway.ask("drain", number=1) == 0
        seats = [link.seat for link in node.service.dispatcher.links.values()]
        assert [seat.drained for seat in seats] == [True]
        assert await gateway.ask("undrain", number=1) == 0
        assert (await node.post(b"x")).status == 200


@pytest.mark.parametrize(
    "wrong",
    [{}, {"number": -1}, {"number": "0"}, {"number": 0, "seconds": -1}, {"number": 0, "more": 1}],
)
async def test_a_wrong_order_changes_nothing(wrong: dict[str, Any]) -> None:
    async with guarded() as gateway:
        with pytest.raises(ControlError) as refused:
            await gateway.ask("drain", **wrong)
        assert refused.value.kind == "InvalidArgument"
        assert gateway.node.service.dispatcher.drained == set()
