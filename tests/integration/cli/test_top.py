# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden top`` as its user meets it: on a terminal, over a private bus, and where it can't."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dbus_next.message import Message

from gpuwarden.control.states import GuardData
from tests.integration.cli.conftest import service_answering
from tests.unit.cli.live.scenes import hot_node

ROOT = Path(__file__).parents[3]
RUN = """\
import sys
from pathlib import Path
from gpuwarden import names
root = Path(sys.argv[1])
names.RUN_DIRECTORY = root
names.GUARD_STATE_FILE = root / "state.json"
names.PLAN_FILE = root / "plan.json"
names.GATEWAY_STATE_FILE = root / "gateway.json"
from gpuwarden.cli.main import main
sys.exit(main(["top", "--every", "0.5", *sys.argv[2:]]))
"""
DENIED = "org.freedesktop.DBus.Error.AccessDenied"


class Terminal:
    """A terminal of 80 by 24, what runs on it, and all that this has written."""

    def __init__(self, root: Path, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        self._set_size(80, 24)
        self.text = ""
        # The terminal's size, and not that of whoever runs the tests.
        inherited = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(root)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env={**inherited, "TERM": "xterm-256color", **environment},
            start_new_session=True,
        )
        os.close(theirs)

    def resize(self, columns: int, rows: int) -> None:
        self._set_size(columns, rows)
        # The kernel tells a terminal's own session; here the test is nobody's.
        self.process.send_signal(signal.SIGWINCH)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def shows(self, wanted: str) -> str:
        """All that was written since the last call, once ``wanted`` is in it."""
        text = ""
        async with asyncio.timeout(30):
            while wanted not in text:
                text += (await asyncio.to_thread(os.read, self._ours, 1 << 16)).decode()
        self.text += text
        return text

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    async def ends(self) -> int:
        """Its exit status; reads on meanwhile, for a full terminal holds it up."""
        async with asyncio.timeout(30):
            while self.process.poll() is None:
                await self._rest()
        return self.process.returncode

    async def _rest(self) -> None:
        try:
            self.text += (await asyncio.to_thread(os.read, self._ours, 1 << 16)).decode()
        except OSError:  # the terminal has nobody at its other end any more
            await asyncio.to_thread(self.process.wait, 30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        os.close(self._ours)


@contextmanager
def top(root: Path, **environment: str) -> Iterator[Terminal]:
    terminal = Terminal(root, **environment)
    try:
        yield terminal
    finally:
        terminal.close()


class Service:
    """Answers with its state, and notes orders; ``refusal`` is the name of an error."""

    def __init__(self, data: GuardData) -> None:
        self.data = data
        self.refusal = ""
        self.orders: list[tuple[str, str, list[object]]] = []

    def __call__(self, message: Message) -> Message:
        if message.member == "GetStatus":
            return Message.new_method_return(message, "s", [self.data.model_dump_json()])
        if message.member == "GetHistory":
            return Message.new_method_return(message, "a(tddus)", [[]])
        self.orders.append((str(message.path), str(message.member), message.body))
        if self.refusal:
            return Message.new_error(message, self.refusal, "no")
        return Message.new_method_return(message)


@pytest.mark.usefixtures("bus")
async def test_a_session_over_ssh(tmp_path: Path) -> None:
    service = Service(hot_node())
    async with service_answering(service):
        with top(tmp_path) as terminal:
            first = await terminal.shows("q quit")
            for wanted in ("DEGRADED", "ALERT", "Queue", "event 39"):
                assert wanted in first
            terminal.press("\r")
            details = await terminal.shows("Esc and Enter look again")
            assert "GPU 0 NVIDIA H200 is " in details
            terminal.press("\x1b")
            await terminal.shows("q quit")
            terminal.press("jjd")
            await terminal.shows("Drain worker 0?")
            assert service.orders == []
            service.refusal = DENIED
            terminal.press("y")
            told = await terminal.shows("manage-workers)")
            assert "denies it: root, or members of the group" in told
            assert service.orders == [("/org/gpuwarden1", "DrainWorker", [0])]
            terminal.resize(40, 10)
            await terminal.shows("needs 64 x 16")
            terminal.resize(100, 30)
            await terminal.shows("q quit")
            terminal.press("q")
            assert await terminal.ends() == 0
    # The terminal is as it was: its own screen, its cursor.
    assert terminal.text.rindex("\x1b[?1049l") > terminal.text.rindex("\x1b[?1049h")
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    assert "\x1b[2J" not in terminal.text  # a screen that is cleared flickers
    assert "\x1b[?1000h" not in terminal.text  # the mouse stays the terminal's


@pytest.mark.usefixtures("bus")
async def test_an_override_is_given_to_the_card(tmp_path: Path) -> None:
    service = Service(hot_node())
    async with service_answering(service):
        with top(tmp_path, NO_COLOR="1") as terminal:
            await terminal.shows("q quit")
            terminal.press("oa")
            await terminal.shows("GPU 0 is cooled as at alert for 600 s")
            terminal.process.send_signal(signal.SIGTERM)
            assert await terminal.ends() == 0
    assert service.orders == [("/org/gpuwarden1/gpu/0", "Override", ["alert", 600])]
    assert "\x1b[?1049l" in terminal.text
    assert not {f"\x1b[{code}m" for code in (31, 32, 33)} & set(terminal.text.split("m"))


@pytest.mark.usefixtures("bus")
async def test_a_service_that_goes_and_comes_back_is_followed(tmp_path: Path) -> None:
    with top(tmp_path, TERM="vt100") as terminal:
        async with service_answering(Service(hot_node())):
            text = await terminal.shows("q quit")
            assert "[_" in text or "_]" in text or text.isascii()
        await terminal.shows("medgemma-guard.service is not running")
        async with service_answering(Service(hot_node(reasons=["it is back"]))):
            await terminal.shows("it is back")
        terminal.press("q")
        assert await terminal.ends() == 0


@pytest.mark.parametrize("bus", ["deny"], indirect=True)
async def test_who_may_not_ask_learns_which_group_may_before_the_screen_is_taken(
    bus: str, tmp_path: Path
) -> None:
    async with service_answering(Service(hot_node())):
        with top(tmp_path, USER="alice") as terminal:
            assert await terminal.ends() == 3
    assert "adduser alice gpuwarden" in terminal.text
    assert "\x1b[" not in terminal.text


async def test_without_a_bus_and_a_last_state_it_says_so_and_ends(tmp_path: Path) -> None:
    with top(tmp_path, DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={tmp_path}/none") as terminal:
        assert await terminal.ends() == 3
    assert "no system bus" in terminal.text
    assert "\x1b[" not in terminal.text


@pytest.mark.parametrize("name", ["dumb", "unknown", ""])
async def test_a_terminal_that_can_not_show_it_is_told_what_can(name: str, tmp_path: Path) -> None:
    with top(tmp_path, TERM=name) as terminal:
        assert await terminal.ends() == 2
    assert "gpuwarden status --watch" in terminal.text


def test_what_is_no_terminal_is_told_what_to_do_instead(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("gpuwarden: top needs a terminal for its input")
    assert "use gpuwarden status" in finished.stderr


@pytest.mark.parametrize("words", [["--every", "0"], ["--every", "soon"], ["now"]])
def test_bad_use_is_exit_2(words: list[str], tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), *words],
        capture_output=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert finished.returncode == 2


def test_no_other_command_waits_for_its_screen() -> None:
    script = (
        "import sys, gpuwarden.cli.main as m, importlib\n"
        "for name in m.COMMANDS: importlib.import_module(f'gpuwarden.cli.{name}')\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('textual', 'rich')])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert finished.stdout == "[]\n"
