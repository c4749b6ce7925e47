# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden jobs save``: results as files, whole or not at all, and never over another file."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Thread

import pytest

from gpuwarden.cli.main import main
from gpuwarden.cli.saving import extension
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.gateway_peer import GatewayPeer

ID = "0123456789abcdef" * 2
MASK = bytes(range(256)) * 300


@pytest.fixture
async def node() -> AsyncIterator[GatewayNode]:
    async with gateway_node() as node:
        yield node


async def saved(port: int, *words: object) -> int:
    url = f"http://127.0.0.1:{port}"
    try:
        return await asyncio.to_thread(main, ["jobs", "save", *map(str, words), "--url", url])
    except SystemExit as left:
        return int(str(left.code))


async def finished(node: GatewayNode, worker: GatewayPeer, content: bytes | None) -> str:
    """A job's id, whose worker has answered with a file, or as ever."""
    reply = await node.post(b"image", path="/v1/jobs")
    identifier: str = reply.json["id"]
    job = await worker.next_job()
    if content is None:
        worker.answer(job)
    else:
        await worker.borrow(job, len(content))
        worker.hand_in(job, content)
    await node.get(f"/v1/jobs/{identifier}?wait=8")
    return identifier


def modes(folder: Path) -> list[int]:
    """Of all that is there."""
    return [file.stat().st_mode & 0o777 for file in folder.iterdir()]


async def test_results_are_saved_by_id_and_type_and_nobody_else_may_read_them(
    node: GatewayNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = await node.worker(auto=False)
    mask, answer = await finished(node, worker, MASK), await finished(node, worker, None)
    assert await saved(node.port, mask, answer, "--to", tmp_path) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{mask}  {tmp_path}/{mask}.png (image/png, {len(MASK)} bytes)"
    assert (tmp_path / f"{mask}.png").read_bytes() == MASK
    assert json.loads((tmp_path / f"{answer}.json").read_bytes())["bytes"] == len(b"image")
    assert modes(tmp_path) == [0o600, 0o600]


async def test_one_result_goes_to_the_file_that_is_named_and_is_told_to_scripts(
    node: GatewayNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = await finished(node, await node.worker(auto=False), MASK)
    file = tmp_path / "mask"
    assert await saved(node.port, mask, "--to", file, "--json") == 0
    told = {"id": mask, "file": str(file), "media_type": "image/png", "bytes": len(MASK)}
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "results": [told]}
    assert file.read_bytes() == MASK


async def test_no_file_is_overwritten_and_the_others_are_saved_all_the_same(
    node: GatewayNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = await node.worker(auto=False)
    first, second = [await finished(node, worker, MASK) for _ in range(2)]
    kept = tmp_path / f"{first}.png"
    kept.write_text("mine")
    assert await saved(node.port, first, second, "--to", tmp_path) == 1
    assert f"{kept} is there already" in capsys.readouterr().err
    assert kept.read_text() == "mine"
    assert (tmp_path / f"{second}.png").read_bytes() == MASK
    assert await saved(node.port, first, "--to", kept) == 1
    kept.unlink()
    kept.symlink_to(tmp_path / "elsewhere")
    assert await saved(node.port, first, "--to", kept) == 1
    assert not (tmp_path / "elsewhere").exists()


async def test_what_has_no_result_leaves_no_file(
    node: GatewayNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting: str = (await node.post(b"image", path="/v1/jobs")).json["id"]
    assert await saved(node.port, waiting, "--to", tmp_path) == 1
    assert "not finished" in capsys.readouterr().err
    worker = await node.busy_worker(auto=False)
    worker.fail(await worker.next_job(), "bad_image")
    await node.get(f"/v1/jobs/{waiting}?wait=8")
    assert await saved(node.port, waiting, ID, "--to", tmp_path) == 1
    told = capsys.readouterr().err
    assert f"{waiting}: the job has no result" in told
    assert f"{ID}: there is no such job" in told
    assert modes(tmp_path) == []


async def test_bad_use_is_told_before_anything_is_asked_for(
    node: GatewayNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        (),
        ("7",),
        (ID, ID, "--to", tmp_path / "no-folder"),
        (ID, "--to", tmp_path / "no-folder" / "file"),
    ):
        assert await saved(node.port, *words) == 2, words
    assert await asyncio.to_thread(main, ["jobs", "show", ID, "--to", str(tmp_path)]) == 2
    assert "--to goes with save" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Le", 1),
        (b"nonsense", 3),
        (b"", 3),
    ],
)
async def test_a_result_that_breaks_off_leaves_no_file(
    answer: bytes, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=answer_once, args=(listening, answer)).start()
        port = listening.getsockname()[1]
        assert await saved(port, ID, "--to", tmp_path) == code
    assert "gpuwarden: " in capsys.readouterr().err
    assert modes(tmp_path) == []


def answer_once(listening: socket.socket, answer: bytes) -> None:
    client, _ = listening.accept()
    with client:
        client.recv(4096)
        client.sendall(answer)


async def test_a_folder_that_may_not_be_written_is_named(
    node: GatewayNode, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = await finished(node, await node.worker(auto=False), MASK)
    assert await saved(node.port, mask, "--to", "/proc") == 1
    assert f"/proc/{mask}.png can't be written" in capsys.readouterr().err


def test_files_are_called_by_their_type() -> None:
    kinds = ("application/dicom", "image/png", "image/jpeg", "application/json; charset=utf-8")
    assert [extension(kind) for kind in kinds] == [".dcm", ".png", ".jpg", ".json"]
    assert extension("application/x-unheard-of") == ".bin"
