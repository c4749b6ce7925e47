# SPDX-License-Identifier: Apache-2.0
"""medgemma-metrics as a process: what it tells, and that nobody who asks can hurt it."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from pydantic import BaseModel

from gpuwarden.control.snapshot import SnapshotWriter
from tests.integration.gateway_node import gateway_node
from tests.integration.metrics_peer import metrics_of
from tests.promtool import check_metrics
from tests.unit.cli.samples import gateway
from tests.unit.metrics.states import published

OK = "HTTP/1.1 200 OK"


def publish(file: Path, data: BaseModel, valid_milliseconds: int = 600_000) -> None:
    SnapshotWriter(file, file.stem, valid_milliseconds).publish(data)


async def has_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection, soon and without a word."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 20) == b""
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All states of a node, and fresh for as long as a test takes."""
    state = published()
    assert state.plan is not None
    assert state.guard is not None
    publish(tmp_path / "plan.json", state.plan)
    publish(tmp_path / "guard.json", state.guard)
    publish(tmp_path / "gateway.json", gateway())
    publish(tmp_path / "thermal-0.json", state.thermal[0])
    publish(tmp_path / "scan-0.json", state.scans[0])
    return tmp_path


async def test_a_scrape_tells_what_is_published_and_prometheus_has_nothing_to_say(
    folder: Path,
) -> None:
    async with metrics_of(folder) as metrics:
        status, text = await metrics.scrape()
    assert status == OK
    check_metrics(text)
    for line in (
        'gpuwarden_gpu_temperature_celsius{gpu="0"} 41.4',
        'gpuwarden_component_stale{component="gateway",gpu=""} 0.0',
        'gpuwarden_component_stale{component="thermal",gpu="1"} 1.0',
        'gpuwarden_worker_state{gpu="0",state="stopped",worker="0"} 1.0',
    ):
        assert f"\n{line}\n" in text.decode()


async def test_the_front_doors_metrics_are_to_prometheus_liking_too() -> None:
    async with gateway_node() as node:
        worker = await node.worker(0, auto=False)
        posted = asyncio.create_task(node.post(b"image"))
        worker.answer(await worker.next_job())
        await posted
        check_metrics((await node.get("/metrics")).body)


async def test_what_is_old_torn_or_of_another_kind_is_left_out_and_said(folder: Path) -> None:
    state = published()
    publish(folder / "thermal-0.json", state.thermal[0], valid_milliseconds=0)
    (folder / "scan-0.json").write_bytes((folder / "scan-0.json").read_bytes()[:100])
    (folder / "guard.json").write_bytes((folder / "gateway.json").read_bytes())
    async with metrics_of(folder) as metrics:
        status, text = await metrics.scrape()
    assert status == OK
    said = text.decode()
    for component, gpu in (("thermal", "0"), ("scan", "0"), ("guard", "")):
        labels = f'component="{component}",gpu="{gpu}"'
        assert f"gpuwarden_component_stale{{{labels}}} 1.0" in said
    assert "gpuwarden_gpu_temperature_celsius" not in said
    assert 'gpuwarden_gpu_info{gpu="0"' in said


async def test_a_scrape_that_comes_while_it_restarts_is_answered_by_the_next_life(
    folder: Path,
) -> None:
    async with metrics_of(folder) as metrics:
        await metrics.scrape()
        await metrics.stop()
        waiting = asyncio.create_task(metrics.scrape())
        await metrics.start()
        assert (await waiting)[0] == OK


async def test_when_nobody_asks_any_more_it_ends(folder: Path) -> None:
    async with metrics_of(folder, idle_seconds=0.2) as metrics:
        assert (await metrics.scrape())[0] == OK
        assert await metrics.ended() == 0


async def test_once_nobody_listens_a_scrape_is_refused(folder: Path) -> None:
    async with metrics_of(folder) as metrics:
        await metrics.scrape()
        await metrics.stop()
        metrics.listener.close()  # systemctl stop medgemma-metrics.socket
        with pytest.raises(ConnectionRefusedError):
            await metrics.connect()


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", "200 OK", b"at /metrics"),
        (b"GET /secret HTTP/1.1\r\nHost: node\r\n\r\n", "404 Not Found", b"at /metrics"),
        (
            b"POST /metrics HTTP/1.1\r\nHost: node\r\nContent-Length: 40000\r\n\r\n" + bytes(40000),
            "405 Method Not Allowed",
            b"takes GET and HEAD",
        ),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "400 Bad Request", b"no HTTP/1 request"),
        (b"\x16\x03\x01\x02\r\n\r\n", "400 Bad Request", b"no HTTP/1 request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request", b"no HTTP/1 request"),
        (
            b"GET /metrics HTTP/1.1\r\nHost: node\r\nX: " + b"y" * 20000 + b"\r\n\r\n",
            "431 Request Header Fields Too Large",
            b"over 8190 bytes",
        ),
        (
            b"GET /metrics HTTP/1.1\r\nHost: node\r\n" + b"X: y\r\n" * 100 + b"\r\n",
            "431 Request Header Fields Too Large",
            b"over 32",
        ),
        (b"HEAD /metrics HTTP/1.1\r\nHost: node\r\n\r\n", "200 OK", b""),
    ],
)
async def test_whatever_is_sent_is_answered_in_words(
    folder: Path, request_: bytes, status: str, words: bytes
) -> None:
    async with metrics_of(folder) as metrics:
        line, body = await metrics.ask(request_)
    assert line.partition(" ")[2] == status
    assert words in body
    assert bool(words) == bool(body)


async def test_headers_that_never_end_are_given_up(folder: Path) -> None:
    async with metrics_of(folder, connection_seconds=0.2) as metrics:
        reader, writer = await metrics.connect()
        writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
        assert await has_ended(reader)
        writer.close()


async def test_those_who_dawdle_make_room_for_one_who_asks(folder: Path) -> None:
    async with metrics_of(folder, connection_seconds=60.0) as metrics:
        dawdlers = [await metrics.connect() for _ in range(40)]
        assert (await metrics.scrape())[0] == OK
        assert await has_ended(dawdlers[0][0])
        for _, writer in dawdlers:
            writer.close()


async def test_a_client_that_never_reads_does_not_keep_it_from_its_end(folder: Path) -> None:
    async with metrics_of(folder) as metrics:
        await metrics.scrape()
        reader, writer = await metrics.connect()
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")
        await metrics.stop()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
