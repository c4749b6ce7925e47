# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden submit`` and ``gpuwarden jobs`` against a running front door."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.cli import jobs, waiting
from gpuwarden.cli.bar import bar_text
from gpuwarden.cli.frontdoor import Door
from gpuwarden.cli.main import main
from tests.integration.cli.breaking_door import breaking_door
from tests.integration.gateway_node import GatewayNode, gateway_node

PNG = b"\x89PNG\r\n\x1a\n"
DICOM = bytes(128) + b"DICM"
BREAKS = (b".1 20", b"Content-", b'"status"')  # in the first line, in the headers, in the document


@dataclass
class Command:
    node: GatewayNode
    port: int
    capsys: pytest.CaptureFixture[str]
    key_file: Path

    async def __call__(self, *words: object) -> tuple[int, str, str]:
        """Exit code, output and errors of one command line."""
        url = f"http://127.0.0.1:{self.port}"
        line = [*map(str, words), "--url", url, "--api-key-file", str(self.key_file)]
        try:
            code = await asyncio.to_thread(main, line)
        except SystemExit as left:
            code = int(str(left.code))
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    async def json(self, *words: object) -> Any:
        code, out, err = await self(*words, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
async def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Command]:
    key_file = tmp_path / "gpuwarden-api-key"
    key_file.write_text("open sesame, open sesame\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    async with gateway_node() as node:
        yield Command(node, node.port, capsys, key_file)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    for number in range(12):
        (folder / "series" / f"{number:03}.img").write_bytes(DICOM + b"%d" % number)
    (folder / "view.png").write_bytes(PNG + bytes(2 << 20))
    (folder / "DICOMDIR.txt").write_text("an index")
    (folder / ".hidden.png").write_bytes(PNG)
    return folder


async def test_a_folder_is_one_command_and_a_second_run_submits_nothing_twice(
    command: Command, study: Path
) -> None:
    code, out, err = await command("submit", study, "--question", "any nodules?")
    assert code == 0
    ids = [line.split()[0] for line in out.splitlines()]
    assert len(set(ids)) == 13
    assert "1 files in these folders are no DICOM" in err
    again = await command.json("submit", study, "--question", "any nodules?")
    assert [job["id"] for job in again["jobs"]] == ids
    assert again["counts"] == {"files": 13, "taken": 13, "new": 0}
    other = await command.json("submit", study, "--question", "any fractures?")
    assert other["counts"]["new"] == 13
    anew = await command.json("submit", study / "view.png", "--question", "any nodules?", "--again")
    assert anew["counts"]["new"] == 1


async def test_waiting_ends_with_the_answers(command: Command, study: Path) -> None:
    await command.node.worker()
    told = await command.json("submit", study, "--question", "?", "--wait")
    assert {one["job"]["status"] for one in told["jobs"]} == {"succeeded"}
    sizes = [one["job"]["result"]["answer"]["bytes"] for one in told["jobs"]]
    assert sizes[0] == 133
    assert max(sizes) == len(PNG) + (2 << 20)
    code, out, _ = await command("submit", study, "--question", "?", "--watch")
    assert code == 0
    assert len(out.splitlines()) == 13
    assert '"bytes": 133' in out


async def test_an_answer_that_is_an_error_shows_in_the_exit_status(
    command: Command, study: Path
) -> None:
    worker = await command.node.worker(auto=False)
    running = asyncio.create_task(command("submit", study / "view.png", "--wait"))
    worker.fail(await worker.next_job(), "bad_image", "not for us")
    code, out, _ = await running
    assert code == 1
    assert out.rstrip().endswith("bad_image: not for us")


async def test_waiting_ends_at_the_first_job_when_the_store_stays_away(
    command: Command, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.01)
    jobs = command.node.service.jobs
    running = asyncio.create_task(command("submit", study, "--wait"))
    await command.node.until(lambda: jobs.opened is not None and bool(jobs.opened._finished))
    await jobs.close(1)
    code, out, err = await running
    assert code == 3
    assert len({line.split()[0] for line in out.splitlines()}) == 13
    assert "gone" not in out
    assert "the same command, without --again, waits for it again" in err


@pytest.mark.parametrize("cut", BREAKS)
@pytest.mark.parametrize("asked", [b"POST ", b"?wait="])
async def test_an_answer_that_breaks_off_is_asked_for_again(
    command: Command, study: Path, asked: bytes, cut: bytes
) -> None:
    await command.node.worker()
    async with breaking_door(command.node, asked, iter([cut])) as command.port:
        told = await command.json("submit", study / "view.png", "--wait")
    assert [one["job"]["status"] for one in told["jobs"]] == ["succeeded"]


@pytest.mark.parametrize("cut", BREAKS)
async def test_the_ids_are_told_when_every_answer_breaks_off(
    command: Command, study: Path, monkeypatch: pytest.MonkeyPatch, cut: bytes
) -> None:
    monkeypatch.setattr(waiting, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.01)
    await command.node.worker()
    async with breaking_door(command.node, b"GET ", repeat(cut)) as command.port:
        code, out, err = await command("submit", study, "--watch")
        assert code == 3
        assert len({line.split()[0] for line in out.splitlines()}) == 13
        assert "does not answer" in err
        assert "the same command, without --again, waits for it again" in err
        code, out, err = await command("jobs", "show", out.split()[0])
        assert (code, out, "does not answer" in err) == (3, "", True)


async def test_jobs_are_listed_shown_cancelled_and_deleted(command: Command, study: Path) -> None:
    submitted = await command.json("submit", study, "--priority", 3)
    first, second, *_ = (job["id"] for job in submitted["jobs"])
    code, out, _ = await command("jobs")
    assert code == 0
    assert out.startswith("13 queued, 0 running")
    assert "jobs before it" in (await command("jobs", "show", second))[1]
    assert "job_cancelled" in (await command("jobs", "cancel", first))[1]
    assert (await command("jobs", "cancel", first))[0] == 1
    assert (await command("jobs", "delete", first, second))[0] == 0
    listed = await command.json("jobs", "list", "--status", "queued")
    assert len(listed["jobs"]) == listed["counts"]["queued"] == 11
    assert (await command("jobs", "show", first))[0] == 1


async def test_a_list_of_several_pages_goes_on_though_jobs_are_deleted_meanwhile(
    command: Command, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = await command.json("submit", study)
    ids = [job["id"] for job in submitted["jobs"]]
    monkeypatch.setattr(jobs, "PAGE", 5)
    door = Door(f"http://127.0.0.1:{command.port}", command.key_file.read_text().strip())
    pages = jobs.pages(door.connect(), [])
    first = await asyncio.to_thread(next, pages)
    seen = [job["id"] for job in first["data"]]
    assert (await command("jobs", "delete", seen[-1]))[0] == 0
    seen += [job["id"] for page in await asyncio.to_thread(list, pages) for job in page["data"]]
    assert sorted(seen) == sorted(ids)


async def test_what_a_worker_says_leaves_the_terminal_as_it_is(
    command: Command, study: Path
) -> None:
    worker = await command.node.worker(auto=False)
    said = "a\x1b[2J\r\x9b1A\u202eb\nc"  # clear the screen; go up a line; from right to left
    one, other = [
        (await command.json("submit", study / "view.png", "--question", question))["jobs"][0]["id"]
        for question in ("one?", "other?")
    ]
    worker.fail(await worker.next_job(), "bad_image", said)
    worker.answer(await worker.next_job(), answer={"text": said})
    for id in (one, other):
        await command.node.get(f"/v1/jobs/{id}?wait=8")
    code, out, _ = await command("jobs", "show", one, other)
    assert code == 0
    assert out.replace("\n", "").isprintable()
    assert "a\\x1b[2J\\r\\x9b1A\\u202eb\\nc" in out  # the failure's
    assert "a\\u001b[2J\\r\\x9b1A\\u202eb\\nc" in out  # the answer's: JSON
    assert len(out.splitlines()) == 4


async def test_bad_use_and_an_absent_service_have_their_own_exit_status(
    command: Command, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ("submit", study / "gone.dcm"),
        ("submit", study, "--priority", "101"),
        ("jobs", "show"),
        ("jobs", "show", "7"),
        ("jobs", "show", "\u0664" * 32),
        ("jobs", "list", "0" * 32),
    ):
        assert (await command(*words))[0] == 2, words
    assert (await command("submit", study / "DICOMDIR.txt"))[0] == 0  # named: taken as it is
    url = "http://127.0.0.1:1"
    assert await asyncio.to_thread(main, ["jobs", "--url", url]) == 3
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a b", "http://a..b", "http://" + "a" * 64, "http://a:b"]
)
async def test_a_url_that_can_not_be_asked_is_bad_use(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(main, ["jobs", "--url", url]) == 2
    assert url in capsys.readouterr().err


async def test_of_several_keys_in_a_file_the_first_is_used(command: Command) -> None:
    # As the service's own file is while its key is changed; by now it has read it.
    command.key_file.write_text("\n  \nopen sesame, open sesame \r\nthe key of next month\n")
    code, out, err = await command("jobs")
    assert (code, err) == (0, "")
    assert out.startswith("0 queued")


@pytest.mark.parametrize("character", [b"\0", b"\x1b", b"\x7f", b"\xff", "\u0142".encode()])
async def test_a_key_that_can_not_be_sent_is_refused_and_not_quoted(
    command: Command, character: bytes
) -> None:
    command.key_file.write_bytes(b"open sesame," + character + b"open sesame\n")
    code, out, err = await command("jobs")
    assert (code, out) == (2, "")
    assert f"{command.key_file}: its first key can't be sent" in err
    assert err.isascii()
    assert "sesame" not in err


async def test_a_folder_with_odd_files_loses_none_of_its_images(
    command: Command, study: Path
) -> None:
    os.mkfifo(study / "pipe.dcm")
    (study / "gone.dcm").symlink_to(study / "nowhere")
    (study / "loop").symlink_to(study)
    (study / "empty.dcm").touch()
    strange = study / os.fsdecode(b"a\nb\x1b[2J\xff.dcm")
    strange.write_bytes(DICOM)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(study / "socket"))
        code, out, err = await command("submit", study)
    assert code == 1  # not everything could be looked at
    assert "gone.dcm: No such file or directory: left out" in err
    assert "4 files in these folders are no DICOM" in err
    assert len(out.splitlines()) == 14
    assert "a\\nb\\x1b[2J\\udcff.dcm" in out


async def test_a_pipe_that_is_named_is_refused_and_not_waited_for(
    command: Command, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, _, err = await command("submit", tmp_path / "pipe")
    assert (code, "no regular file" in err) == (2, True)


@pytest.mark.parametrize("question", ["w" * 8001, "\udcff", "\u4e2d" * 900])
async def test_a_question_that_can_not_be_sent_is_refused_before_anything_is(
    command: Command, study: Path, question: str
) -> None:
    code, _, err = await command("submit", study, "--question", question)
    assert (code, "--question" in err) == (2, True)


def test_the_bar_tells_how_far_how_fast_and_how_long() -> None:
    assert bar_text("submitted", 0, 1287, 0.0).endswith("0/1287")
    text = bar_text("submitted", 643, 1287, 20.0)
    assert text.startswith("submitted [###################.")
    assert text.endswith("643/1287  32.1/s  20 s left")
