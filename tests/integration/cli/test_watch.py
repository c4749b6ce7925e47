# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden status --watch`` as its user meets it: on a terminal, and off one."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuwarden.cli.watch import redrawn
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import GuardData
from gpuwarden.values import ServiceState
from tests.unit.cli.samples import guard

ROOT = Path(__file__).parents[3]
# No bus: what is shown is what the guard, here this test's process, has published.
# Interrupts as on a terminal: a shell ignores them for what it runs in the background.
RUN = """\
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from gpuwarden import names
root = Path(sys.argv[1])
names.RUN_DIRECTORY = root
names.GUARD_STATE_FILE = root / "state.json"
names.PLAN_FILE = root / "plan.json"
names.GATEWAY_STATE_FILE = root / "gateway.json"
from gpuwarden.cli.main import main
sys.exit(main(["status", *sys.argv[2:]]))
"""
FOR_EVER_MILLISECONDS = 10**8


class Watched:
    """A running watch and what it has written so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.process = process
        self.text = ""
        self._descriptor = descriptor

    def read_until(self, wanted: str) -> str:
        """Everything written since the last call, once ``wanted`` is in it."""
        text = ""
        while wanted not in text:
            text += os.read(self._descriptor, 1 << 16).decode()
        return text

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@contextmanager
def watching(root: Path, *words: str, terminal: bool) -> Iterator[Watched]:
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environment = os.environ | {
        "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={root}/none",
        "TERM": "xterm",
        "COLUMNS": "100",
        "LINES": "40",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root), "--watch", "0.5", *words],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment,
    )
    os.close(theirs)
    try:
        yield Watched(process, ours)
    finally:
        process.kill()
        process.wait(30)
        os.close(ours)


def publish(root: Path, data: GuardData, valid_milliseconds: int = FOR_EVER_MILLISECONDS) -> None:
    SnapshotWriter(root / "state.json", "guard", valid_milliseconds).publish(data)


def test_on_a_terminal_each_screen_goes_over_the_former_without_a_clearing(tmp_path: Path) -> None:
    publish(tmp_path, guard())
    with watching(tmp_path, terminal=True) as watched:
        first = watched.read_until("\x1b[J")
        assert first.startswith("\x1b[H\x1b[2J\x1b[H")
        assert "RUNNING" in first
        publish(tmp_path, guard(state=ServiceState.DEGRADED, reasons=["worker 1 failed: x"]))
        second = watched.read_until("worker 1 failed: x")
        assert "\x1b[2J" not in second
        assert watched.interrupt() == 0


def test_off_a_terminal_an_empty_line_parts_the_screens_and_nothing_is_painted(
    tmp_path: Path,
) -> None:
    publish(tmp_path, guard())
    with watching(tmp_path, terminal=False) as watched:
        text = watched.read_until("\n\ngpuwarden 0.1.0 is RUNNING, ")
        assert "\x1b" not in text
        assert re.match(r"gpuwarden 0\.1\.0 is RUNNING, \d\d:\d\d:\d\d\n", text)
        assert watched.interrupt() == 0


def test_a_service_that_goes_away_is_said_and_the_watch_goes_on(tmp_path: Path) -> None:
    publish(tmp_path, guard())
    with watching(tmp_path, terminal=False) as watched:
        watched.read_until("RUNNING, ")
        publish(tmp_path, guard(), valid_milliseconds=0)
        watched.read_until("NOT RUNNING, ")
        (tmp_path / "state.json").unlink()
        watched.read_until("nor is there a last state")
        publish(tmp_path, guard())
        watched.read_until("is RUNNING, ")
        assert watched.interrupt() == 0


def test_for_scripts_each_look_is_one_line_of_json(tmp_path: Path) -> None:
    publish(tmp_path, guard())
    with watching(tmp_path, "--json", terminal=True) as watched:
        first, second, *_ = watched.read_until("}\r\n{").splitlines()
        assert GuardData.model_validate_json(first) == guard()
        assert watched.interrupt() == 0
    assert second.startswith("{")


@pytest.mark.parametrize("words", [["0"], ["-1"], ["often"], ["nan"], ["1e9"]])
def test_how_often_is_a_number_of_seconds(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), f"--watch={words[0]}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "SECONDS is from 0.5 to 3600" in done.stderr


def test_a_screen_that_does_not_fit_is_cut_and_says_so() -> None:
    text = redrawn([f"line {n}" for n in range(30)], 24)
    assert text.count("\n") == 23  # the cursor's line is the 24th
    assert "line 21\x1b[K\n  ... 8 more lines" in text
