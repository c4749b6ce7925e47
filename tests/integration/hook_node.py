# SPDX-License-Identifier: Apache-2.0
"""A folder with a configuration and cards' states in it, in which hooks run as processes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import ThermalData
from gpuwarden.values import ThermalState

REPOSITORY = Path(__file__).parents[2]
LONG_MILLISECONDS = 600_000
RUNNER = """\
import sys
from pathlib import Path
from gpuwarden.config import load_configuration
from gpuwarden.guard.hook_runner import Places, main
root = Path(sys.argv[1])
load = lambda: load_configuration(root / "gpuwarden.toml", None)
sys.exit(main(sys.argv[2:], Places(load, lambda index: root / f"thermal-{index}.json")))
"""


class HookNode:
    """Runs hooks as systemd would, but without its walls."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def configure(self, text: str) -> None:
        (self.root / "gpuwarden.toml").write_text(text, encoding="utf-8")

    def publish(self, state: ThermalState, gpu: int = 0, valid: int = LONG_MILLISECONDS) -> None:
        """What the thermal guard of a card says."""
        data = ThermalData(
            index=gpu,
            uuid=f"GPU-0000000{gpu}",
            name="NVIDIA H200",
            pci_address="0000:01:00.0",
            numa_node=0,
            temperature_celsius=79.0,
            state=state,
            since=1_700_000_000_000_000,
            reason='die 79 C, "alert" is\n78 C',
        )
        SnapshotWriter(self.root / f"thermal-{gpu}.json", "thermal", valid).publish(data)

    def command(self, instance: str) -> list[str]:
        """The command line of one run."""
        return [sys.executable, "-c", RUNNER, str(self.root), instance]

    def run(self, instance: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a hook to its end."""
        return subprocess.run(
            self.command(instance),
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@dataclass
class Page:
    """An HTTP server as a Gradio page has one.

    :ivar heard: path and body of each POST.
    :ivar gate: closed, it lets callers wait.
    """

    port: int = 0
    status: int = 200
    location: str = ""
    heard: list[tuple[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/thermal_mode"


@contextmanager
def page() -> Iterator[Page]:
    """The page at work, on a port of its own."""
    told = Page()
    told.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            told.heard.append((self.path, json.loads(body)))
            told.gate.wait(60)
            self.send_response(told.status)
            if told.location:
                self.send_header("Location", told.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            """A caller that has given up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield told
    finally:
        told.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
