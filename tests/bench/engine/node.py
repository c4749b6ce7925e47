# SPDX-License-Identifier: Apache-2.0
"""A node without systemd: the front door, workers, a card's readings."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.gateway_node import ThermalGuards

ROOT = Path(__file__).parents[3]
WORKER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from gpuwarden.worker.host import main; sys.exit(main(sys.argv[1:]))"
)
MODEL = "medgemma-shaped"
READY = "READY=1"


class NotReadyError(RuntimeError):
    """A process ended, or took too long; the text has the end of its log."""


@dataclass
class Program:
    """A process that tells when it is ready."""

    process: subprocess.Popen[bytes]
    notify: socket.socket
    log: Path
    name: str = ""
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._ready = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def wait_until_ready(self, seconds: float) -> float:
        """The seconds that it took. Raises NotReadyError."""
        while time.monotonic() - self.started < seconds:
            if self._ready.wait(0.05):
                return time.monotonic() - self.started
            if self.process.poll() is not None:
                break
        raise NotReadyError(f"not ready:\n{self.end_of_log()}")

    def _listen(self) -> None:
        """Take all that it says, as systemd does."""
        with contextlib.suppress(OSError):
            while said := self.notify.recv(4096):
                if READY in said.decode("ascii", "replace").splitlines():
                    self._ready.set()

    def end_of_log(self) -> str:
        """Its last lines."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    @property
    def runs(self) -> bool:
        """Whether it lives."""
        return self.process.poll() is None

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.notify.close()


class Node:
    """Gateway and workers in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.guards = ThermalGuards(folder / "thermal")
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = int(found.getsockname()[1])
        self._names = iter(range(1000))
        self._programs: list[Program] = []

    def start_gateway(self) -> Program:
        """The front door; waits for it."""
        words = ["-m", "tests.bench.engine.front_door", str(self.port), str(self.folder)]
        program = self._start("gateway", words)
        program.wait_until_ready(30)
        return program

    def start_worker(
        self,
        options: dict[str, Any],
        slots: int,
        cpus: int,
        environment: dict[str, str],
        number: int,
    ) -> Program:
        """A worker; see ``wait_until_ready``."""
        settings = {
            "number": number,
            "engine": "tests.bench.engine.measured:Measured",
            "model": MODEL,
            "options": options,
            "gpu_index": number,
            "gpu_uuid": "",
            "max_batch": slots,
            "preprocess_processes": cpus,
            "dispatch_socket": str(self.folder / "dispatch.sock"),
            "execution_timeout_seconds": 60,
            "load_timeout_seconds": 600,
        }
        descriptor = os.memfd_create("settings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(descriptor, json.dumps(settings).encode())
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0xF)
        words = ["-c", WORKER, str(ROOT), "--settings-fd", str(descriptor)]
        try:
            return self._start(f"worker-{number}", words, (descriptor,), environment)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End all that still runs."""
        for program in reversed(self._programs):
            if program.process.poll() is None:
                program.stop()

    def _start(
        self,
        name: str,
        words: list[str],
        pass_fds: tuple[int, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> Program:
        place = self.folder / f"{name}-{next(self._names)}"
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(f"{place}.notify")
        log = Path(f"{place}.log")
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stderr=log.open("ab"),
            env={**os.environ, "NOTIFY_SOCKET": f"{place}.notify", **(environment or {})},
        )
        program = Program(process, notify, log, name)
        self._programs.append(program)
        return program

    def cpu_seconds(self) -> dict[str, float]:
        """What each process that runs has used of the CPUs, its threads' together."""
        used = {}
        for program in self._programs:
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{program.process.pid}/stat").read_text()
                fields = stat.rpartition(")")[2].split()
                used[f"{program.name} {program.process.pid}"] = (
                    int(fields[11]) + int(fields[12])
                ) / os.sysconf("SC_CLK_TCK")
        return used


class CardReader:
    """Reads the cards twice a second; nothing on them can be set from this process."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Read from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        self._thread.join(10)

    @contextlib.contextmanager
    def during(self, into: dict[str, Any]) -> Iterator[None]:
        """Note what was read meanwhile."""
        first = len(self.rows)
        try:
            yield
        finally:
            self._note(self.rows[first:], into)

    def _note(self, rows: list[dict[str, float]], into: dict[str, Any]) -> None:
        for name in ("celsius", "watts", "utilization_percent"):
            values = sorted(row[name] for row in rows)
            if values:
                into[name] = {"median": values[len(values) // 2], "most": values[-1]}
        if rows:
            into["limit_watts"] = rows[-1]["limit_watts"]

    def _run(self) -> None:
        import pynvml  # noqa: PLC0415 - only where there is a card

        from tests.gpu.reading_only import forbid_setters  # noqa: PLC0415

        forbid_setters()
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        cards = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        while not self._stop.wait(0.5):
            self.rows += [
                {
                    "time": time.time(),
                    "card": float(index),
                    "celsius": float(
                        pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU)
                    ),
                    "watts": pynvml.nvmlDeviceGetPowerUsage(card) / 1000,
                    "limit_watts": pynvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1000,
                    "utilization_percent": float(pynvml.nvmlDeviceGetUtilizationRates(card).gpu),
                    "used_bytes": float(pynvml.nvmlDeviceGetMemoryInfo(card).used),
                }
                for index, card in enumerate(cards)
            ]
