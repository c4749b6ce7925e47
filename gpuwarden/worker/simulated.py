# SPDX-License-Identifier: Apache-2.0
"""What a CUDA context is on a simulated card: a connection to the simulator.

For as long as it is open the process stands in the card's process list with its memory, and its
load heats the card. When the simulator ends it, the context is lost, as after a real card's Xid.
"""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Optional

from gpuwarden.worker.waiting import within

_log = logging.getLogger(__name__)
ANSWER_SECONDS = 10.0  # a daemon that steps its physics answers within milliseconds


class SimulatedCardError(Exception):
    """The simulator gave no context; the text says why."""


def is_there(socket_path: str, gpu_uuid: str) -> bool:
    """Whether this worker's card is a simulated one."""
    return bool(gpu_uuid) and Path(socket_path).is_socket()


class SimulatedContext:
    """One context on a simulated card. ``on_lost`` is called once if the simulator ends it."""

    def __init__(
        self,
        device: Optional[BinaryIO],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        vram_bytes: int,
        on_lost: Callable[[], None],
    ) -> None:
        self._device = device
        self._reader = reader
        self._writer = writer
        self._on_lost = on_lost
        self._load = 0.0
        self.vram_bytes = vram_bytes
        self.lost = False
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    @classmethod
    async def create(
        cls, socket_path: str, gpu_uuid: str, vram_bytes: int, on_lost: Callable[[], None]
    ) -> "SimulatedContext":
        """Attach to a card. Raises SimulatedCardError."""
        try:
            reader, writer = await asyncio.open_unix_connection(socket_path)
            attach = {"uuid": gpu_uuid, "vram_bytes": vram_bytes, "load": 0.0}
            try:
                writer.write(json.dumps(attach).encode() + b"\n")
                line = await within(ANSWER_SECONDS, reader.readline())
            except BaseException:  # a stop, too, must leave no context on the card
                writer.close()
                raise
        except (OSError, asyncio.TimeoutError) as error:
            raise SimulatedCardError(
                f"the simulator at {socket_path} does not answer: {type(error).__name__}"
            ) from error
        problem = _problem(line)
        if problem:
            writer.close()
            raise SimulatedCardError(f"simulated card {gpu_uuid}: {problem}")
        device = _open_device(Path(socket_path).with_name(f"card-{gpu_uuid}"))
        return cls(device, reader, writer, vram_bytes, on_lost)

    def set_load(self, load: float) -> None:
        """The fraction of the card that this process uses from now on."""
        if not self.lost and load != self._load:
            self._load = load
            self._writer.write(json.dumps({"load": load}).encode() + b"\n")

    async def close(self) -> None:
        """Give the context back."""
        self._watcher.cancel()
        await asyncio.gather(self._watcher, return_exceptions=True)
        self._writer.close()
        if self._device is not None:
            self._device.close()

    async def _watch(self) -> None:
        while True:
            try:
                line = await self._reader.readline()
            except OSError:
                line = b""
            if not line:
                self.lost = True
                self._on_lost()
                return
            problem = _problem(line)
            if problem:
                _log.warning("simulated card: %s", problem)


def _open_device(path: Path) -> Optional[BinaryIO]:
    """What tells who uses the card, as CUDA has /dev/nvidia0 open; older simulators have none."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _problem(line: bytes) -> Optional[str]:
    try:
        answer: Dict[str, Any] = json.loads(line)
        return None if answer["ok"] else str(answer.get("error"))
    except (ValueError, KeyError, TypeError):
        return f"an answer of {len(line)} bytes is no answer of a simulator"
