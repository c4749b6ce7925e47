# SPDX-License-Identifier: Apache-2.0
"""A simulated node for tests: the built library, a running daemon, processes that call NVML."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwarden.simulator.cli import UnreachableError, ask, parse_arguments, request_of
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
SOURCES = REPOSITORY / "gpuwarden" / "simulator" / "nvml"
CLIENT = Path(__file__).parent / "nvml_client.py"
DEADLINE_SECONDS = 30.0
CALL_SECONDS = 10.0
GIBIBYTE = 1024**3
XID_EVENT = 8  # nvmlEventTypeXidCriticalError


def error(name: str) -> dict[str, str]:
    """How a Caller answers when NVML raised."""
    return {"error": name}


LOST = error("GpuIsLost")


def build_library(directory: Path) -> Path:
    subprocess.run(
        ["make", "-s", "-C", str(SOURCES), f"BUILD={directory}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return directory / "libnvidia-ml.so.1"


class Caller:
    """A process that calls NVML, one call at a time."""

    def __init__(self, library: Path, state: Path, prefix: tuple[str, ...] = ()) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, str(CLIENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"SIMULATED_LIBRARY": str(library), "GPUWARDEN_SIM_STATE": str(state)},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, *request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the calling process ended"
        return json.loads(line)

    def __call__(self, *request: Any) -> Any:
        self.send(*request)
        return self.receive()

    def state(self) -> str:
        """The kernel's state letter of its main thread."""
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        return stat.rpartition(")")[2].split()[0]

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(CALL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(CALL_SECONDS)
        self._process.stdout.close()


class Attachment:
    """A connection to the attach socket: what a CUDA context is here."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(CALL_SECONDS)
        self.socket.connect(str(path))
        self._lines = self.socket.makefile("rb")

    def say(self, **message: Any) -> Any:
        return self.say_raw(json.dumps(message).encode() + b"\n")

    def say_raw(self, line: bytes) -> Any:
        self.socket.sendall(line)
        return json.loads(self._lines.readline())

    def is_at_end(self) -> bool:
        return self._lines.readline() == b""

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@dataclass
class Node:
    """A running simulator."""

    directory: Path
    library: Path
    cards: Path
    process: subprocess.Popen[str] | None = None
    callers: list[Caller] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gpuwarden.simulator.service"),
                *("--run-directory", str(self.directory), "--cards", str(self.cards)),
            ],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            assert self.process.stderr is not None
            raise AssertionError(f"the simulator ended: {self.process.stderr.read()}")
        try:
            return bool(self.ask(command="show")["ok"])
        except UnreachableError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(DEADLINE_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process = None

    def sim(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run gpuwarden-sim."""
        control = str(self.directory / "control.sock")
        return subprocess.run(
            [sys.executable, "-m", "gpuwarden.simulator.cli", "--socket", control, *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request on the control socket; the answer."""
        return ask(self.directory / "control.sock", request)

    def do(self, *arguments: str) -> list[dict[str, Any]]:
        """What gpuwarden-sim does with these arguments, which must succeed; every card after it."""
        answer = self.ask(**request_of(parse_arguments(list(arguments))))
        assert answer["ok"], answer["error"]
        cards: list[dict[str, Any]] = answer["cards"]
        return cards

    def caller(self, prefix: tuple[str, ...] = (), initialised: bool = True) -> Caller:
        caller = Caller(self.library, self.state, prefix)
        self.callers.append(caller)
        if initialised:
            assert caller("nvmlInit") is None
        return caller

    def attach(self) -> Attachment:
        return Attachment(self.directory / "attach.sock")


@contextmanager
def running_node(directory: Path, library: Path, *presets: str) -> Iterator[Node]:
    """A simulator with these cards, at 0000:41:00.0, 0000:42:00.0 and so on."""
    entries = [
        {"preset": preset, "pci_address": f"0000:{0x41 + number:02x}:00.0"}
        for number, preset in enumerate(presets)
    ]
    directory.mkdir(parents=True)
    cards = directory / "cards.json"
    cards.write_text(json.dumps({"cards": entries}), encoding="ascii")
    node = Node(directory / "run", library, cards)
    node.start()
    try:
        yield node
    finally:
        if node.process is None:
            node.start()  # whatever is frozen has to be thawed by somebody
        node.stop()
        for caller in node.callers:
            caller.end()


def uuid_of(node: Node, index: int = 0) -> str:
    return str(node.do("show")[index]["uuid"])


def attached(node: Node, vram_bytes: int = GIBIBYTE, load: float = 0.0) -> Attachment:
    """A context on the first card."""
    attachment = node.attach()
    answer = attachment.say(uuid=uuid_of(node), vram_bytes=vram_bytes, load=load)
    assert answer == {"ok": True}
    return attachment
