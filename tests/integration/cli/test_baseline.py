# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden baseline`` against a running front door and the states of thermal guards."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpuwarden import names
from gpuwarden.baseline.store import StoreError, load
from gpuwarden.cli import baseline, baseline_record
from gpuwarden.cli.main import main
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import ThermalData
from gpuwarden.metrics import sources
from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.unit.baseline.recordings import recording
from tests.unit.cli.samples import gpu
from tests.unit.metrics.states import plan

ROOT = Path(__file__).parents[3]


@dataclass
class Command:
    node: GatewayNode
    folder: Path
    capsys: pytest.CaptureFixture[str]

    async def __call__(self, *words: object, port: int | None = None) -> tuple[int, str, str]:
        """Exit code, output and errors of one command line."""
        url = f"http://127.0.0.1:{port or self.node.port}"
        try:
            line = ["baseline", *map(str, words), "--url", url]
            code = await asyncio.to_thread(main, line)
        except SystemExit as left:
            code = int(str(left.code))
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    async def record(self, name: str, *words: object, pause: float = 0.0) -> tuple[int, str, str]:
        """Record while requests come, one after the other."""
        running = asyncio.create_task(self("record", name, "--seconds", 1.2, *words))
        while not running.done():
            await self.node.post(b"image")
            await asyncio.sleep(pause)  # the recording goes by the clock
        return await running

    def keep(self, name: str, **changes: Any) -> None:
        file = names.BASELINES_DIRECTORY / f"{name}.json"
        file.write_text(recording(name, **changes).model_dump_json())


@pytest.fixture
async def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Command]:
    for index in (0, 1):
        card: ThermalData = gpu(index, original_power_limit_watts=700.0)
        file = tmp_path / f"thermal-{index}.json"
        SnapshotWriter(file, "thermal", 600_000).publish(card)
    SnapshotWriter(tmp_path / "plan.json", "placement").publish(plan())
    places = sources.Places(
        tmp_path / "plan.json",
        tmp_path / "guard.json",
        tmp_path / "gateway.json",
        lambda index: tmp_path / f"thermal-{index}.json",
        lambda index: tmp_path / f"scan-{index}.json",
    )
    (tmp_path / "baselines").mkdir()
    monkeypatch.setattr(sources, "Places", lambda: places)
    monkeypatch.setattr(names, "BASELINES_DIRECTORY", tmp_path / "baselines")
    monkeypatch.setattr(baseline, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(baseline_record, "LOOK_SECONDS", 0.02)
    async with gateway_node() as node:
        await node.worker(0)
        yield Command(node, tmp_path, capsys)


async def test_what_is_recorded_twice_is_compared_listed_shown_and_drawn(command: Command) -> None:
    code, out, err = await command.record("before", "--note", "as delivered")
    assert (code, err) == (0, "")
    assert "before.json" in out
    kept = load(names.BASELINES_DIRECTORY / "before.json")
    assert kept.is_complete
    assert kept.answered > 12
    assert (kept.models, kept.simulated, kept.note) == (["imagestats"], True, "as delivered")
    assert kept.windows[5].cards[1].watts_mean == pytest.approx(122.4)
    assert kept.settings["GPU 0: power limit"] == "700 W"
    code, _, _ = await command.record("after", pause=0.005)
    assert code == 0
    code, out, err = await command("compare", "before", "after", "--plot", command.folder / "b.svg")
    assert code == 0
    assert "all verdicts together with" in out
    assert "SIMULATED" in err
    assert "hottest die in C" in (command.folder / "b.svg").read_text()
    code, out, _ = await command("compare", "before", "after", "--json")
    document = json.loads(out)
    heat = next(each for each in document["figures"] if each["figure"] == "hottest_celsius")
    assert (heat["a"], heat["verdict"]) == (41.4, "same")
    code, out, _ = await command("list")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "before", "after"]
    assert (await command("show", "before"))[0] == 0
    assert json.loads((await command("show", "before", "--json"))[1])["name"] == "before"


async def test_no_traffic_is_said_and_what_the_cards_did_is_kept(command: Command) -> None:
    code, out, err = await command("record", "idle", "--seconds", "0.3")
    assert code == 1
    assert "nothing was answered meanwhile" in err
    assert "power of all cards" in out
    assert load(names.BASELINES_DIRECTORY / "idle.json").is_complete


async def test_without_a_front_door_nothing_is_recorded(command: Command) -> None:
    code, _, err = await command("record", "x", "--seconds", "0.3", port=1)
    assert code == 3
    assert "does not answer: Connection refused" in err
    assert not list(names.BASELINES_DIRECTORY.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("record", "a/b"), 2, "letters, digits, dots"),
        (("record", "../x"), 2, "letters, digits, dots"),
        (("record", ".x"), 2, "no dash or dot first"),
        (("record", "a", "b"), 2, "record takes one name; found 2"),
        (("record", "a", "--seconds", "0"), 2, "from 0.1 s to 7 days; found '0'"),
        (("record", "a", "--plot", "x.svg"), 2, "--plot goes with compare"),
        (("compare", "a"), 2, "compare takes two names; found 1"),
        (("compare", "a", "b", "--plot", "x.gif"), 2, "must end in .png or .svg"),
        (("compare", "a", "b"), 1, "is not there (gpuwarden baseline list)"),
        (("list", "--note", "x"), 2, "--note goes with record"),
        (("show", "torn"), 1, "torn.json is damaged"),
        (("record", "torn", "--seconds", "0.3"), 1, "is there already"),
        (("record", "a", "--seconds", "1", "--to", "/no/such/a.json"), 1, "can't be written"),
    ],
)
async def test_what_can_not_be_is_said(
    command: Command, words: tuple[str, ...], code: int, says: str
) -> None:
    (names.BASELINES_DIRECTORY / "torn.json").write_text('{"schema_version": 1, "na')
    found, _, err = await command(*words)
    assert found == code
    assert says in err


async def test_another_machines_front_door_is_refused(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["baseline", "record", "far", "--url", "http://10.1.2.3:7860"]
    assert await asyncio.to_thread(main, line) == 2
    assert "is another machine: record on the node itself" in capsys.readouterr().err


async def test_a_url_that_is_none_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["baseline", "record", "none", "--url", "http://[::1"]
    assert await asyncio.to_thread(main, line) == 2
    assert "http://[::1" in capsys.readouterr().err


async def test_a_damaged_recording_is_listed_with_what_is_wrong(command: Command) -> None:
    (names.BASELINES_DIRECTORY / "torn.json").write_text("")
    command.keep("cut", windows=3)
    code, out, _ = await command("list")
    assert code == 0
    assert "torn.json is damaged" in out
    assert "3 of 12, cut short" in out


async def test_recordings_of_two_nodes_are_compared_and_it_is_said(command: Command) -> None:
    command.keep("here")
    command.keep("there", machine="ba9876543210", host="node-2")
    code, _, err = await command("compare", "here", "there")
    assert code == 0
    assert "two nodes: here is of node-1, there of node-2" in err


async def test_a_recording_that_is_killed_keeps_its_windows(command: Command) -> None:
    file = command.folder / "killed.json"
    program = (
        "import sys; from gpuwarden.cli import baseline, baseline_record; "
        "baseline_record.LOOK_SECONDS = 0.02; baseline.LEAST_SECONDS = 0.1; "
        "from gpuwarden.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    url = f"http://127.0.0.1:{command.node.port}"
    words = ("baseline", "record", "killed", "--seconds", "12", "--to", str(file), "--url", url)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *words, cwd=ROOT)
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(StoreError):  # not there yet
                if load(file).windows:
                    break
            await command.node.post(b"image")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    kept = load(file)
    assert not kept.is_complete
    assert kept.windows[0].requests is not None
    assert kept.windows[0].requests.completed > 0
