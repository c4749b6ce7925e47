# SPDX-License-Identifier: Apache-2.0
# The front door shut for a time: what callers see, what goes on, what outlives what.

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gpuwarden.bus.errors import BusError, Failed, InvalidArgument, Unavailable
from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds, read_snapshot
from gpuwarden.control.socket import ControlError, ask_async, serve
from gpuwarden.control.states import GatewayData
from gpuwarden.gateway import door
from gpuwarden.gateway.pause import Pause
from gpuwarden.guard import gateway
from gpuwarden.guard.gateway import GatewayControl
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.gateway_process import predict, ready_by_hand


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        yield Path(name)


@pytest.fixture
async def node(folder: Path) -> AsyncIterator[GatewayNode]:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(folder / "control.sock"))
    listening.listen()
    async with gateway_node(control=[listening]) as running:
        yield running


@pytest.fixture
def control(folder: Path) -> GatewayControl:
    return GatewayControl(folder / "control.sock")


def paused_file(seconds: float = 600, boot: str = "") -> str:
    return Pause(
        boot_id=boot or boot_id(),
        until_boottime_nanoseconds=boottime_nanoseconds() + int(seconds * 1e9),
        until_unix_microseconds=1_700_000_000_000_000,
    ).model_dump_json()


async def test_new_requests_are_refused_with_a_time_and_accepted_ones_answered(
    node: GatewayNode, control: GatewayControl
) -> None:
    worker = await node.worker(auto=False)
    accepted = asyncio.create_task(node.post(b"before"))
    job = await worker.jobs.get()
    await control.pause(600)
    refused = await node.post(b"after")
    assert (refused.status, refused.error) == (503, "paused")
    assert 595 <= int(refused.headers["retry-after"]) <= 600
    assert (await node.post(b"an image", path="/v1/images")).error == "paused"
    ready = await node.get("/readyz")
    assert (ready.status, ready.json["ready"]) == (503, False)
    assert "the service is paused until" in ready.json["reasons"][0]
    assert (await node.get("/healthz")).status == 200
    worker.answer(job)
    assert (await accepted).status == 200
    await node.until(lambda: node.snapshot().paused_until is not None)
    assert node.snapshot().paused
    worker.answers_by_itself = True
    await control.resume()
    assert (await node.post(b"again")).status == 200
    await node.until(lambda: not node.snapshot().paused)
    assert node.snapshot().paused_until is None


async def test_it_ends_by_itself_and_a_later_one_replaces_it(
    node: GatewayNode, control: GatewayControl, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await node.worker()
    await control.pause(86_400)
    await control.pause(1)
    assert (await node.post(b"x")).headers["retry-after"] == "1"
    await node.until(lambda: node.service.dispatcher.running_pause() is None)
    assert (await node.post(b"x")).status == 200
    await node.until(lambda: not (node.state_path.with_name(door.PAUSE_FILE)).exists())
    events = [getattr(record, "fields", {}).get("GPUWARDEN_EVENT") for record in caplog.records]
    assert events.count("gateway-paused") == 2
    assert events.count("gateway-resumed") == 1
    await control.resume()  # none is running: no error, nothing told
    assert len(events) == len(caplog.records)


@pytest.mark.parametrize("seconds", [0, 86_401, 2**32 - 1])
async def test_a_wrong_time_is_refused_by_guard_and_gateway_and_nothing_changes(
    node: GatewayNode, control: GatewayControl, folder: Path, seconds: int
) -> None:
    await node.worker()
    await control.pause(600)
    before = node.service.dispatcher.pause
    with pytest.raises(InvalidArgument, match="1 to 86400"):
        await control.pause(seconds)
    with pytest.raises(ControlError) as caught:
        await ask_async(folder / "control.sock", {"request": "pause", "seconds": seconds}, 5)
    assert caught.value.kind == "InvalidArgument"
    assert node.service.dispatcher.pause == before


async def test_what_can_not_be_kept_is_not_done(node: GatewayNode, control: GatewayControl) -> None:
    await node.worker()
    node.state_path.with_name(f".{door.PAUSE_FILE}.tmp").mkdir()
    with pytest.raises(Failed, match="can't be kept"):
        await control.pause(60)
    assert (await node.post(b"x")).status == 200


async def test_a_pause_outlives_the_gateway(folder: Path) -> None:
    (folder / door.PAUSE_FILE).write_text(paused_file())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with ready_by_hand(folder, port) as state:
        assert await predict(port) == 503
    assert read_snapshot(state, GatewayData).data.paused_until == 1_700_000_000_000_000
    assert (folder / door.PAUSE_FILE).exists()


async def test_a_file_that_can_not_be_believed_pauses_nothing(node: GatewayNode) -> None:
    whole = paused_file()
    file = node.state_path.with_name("another.json")
    for text in ("", whole[:-10], "[]", paused_file(boot="other"), paused_file(-1), "\0" * 99):
        file.write_text(text)
        door.Door(node.service.dispatcher, file).close()
        assert node.service.dispatcher.running_pause() is None, text
    file.write_text(whole)
    door.Door(node.service.dispatcher, file).close()
    assert node.service.dispatcher.running_pause() is not None


# What the guard makes of it


async def test_a_gateway_that_is_away_is_unavailable(
    folder: Path, control: GatewayControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match="medgemma-gateway"):
        await control.resume()
    monkeypatch.setattr(gateway, "ASK_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hung:
        hung.bind(str(folder / "control.sock"))
        hung.listen()
        with pytest.raises(Unavailable, match="no answer within"):
            await control.pause(60)


@pytest.mark.parametrize(
    ("kind", "name"), [("InvalidArgument", "InvalidArgument"), ("Busy", "Busy"), ("Odd", "Failed")]
)
async def test_what_the_gateway_refuses_arrives_with_its_name(
    folder: Path, control: GatewayControl, kind: str, name: str
) -> None:
    def refuse(request: dict[str, object]) -> dict[str, object]:
        raise ControlError(kind, "no")

    server = await serve(folder / "control.sock", {"resume": refuse}, {0})
    with pytest.raises(BusError, match="no") as caught:
        await control.resume()
    assert caught.value.name.endswith(f".{name}")
    await server.close()
