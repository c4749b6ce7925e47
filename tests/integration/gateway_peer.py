# SPDX-License-Identifier: Apache-2.0
"""A worker's end of the channel: the real frames, sockets and mappings, without a model.

As a program it is a worker process to be killed: it maps and hashes each body, then answers.
"""

import argparse
import array
import asyncio
import hashlib
import mmap
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuwarden.worker.frames import RECORD_LIMIT_BYTES, Frame, FrameType, encode
from gpuwarden.worker.together import frames_in

# For what comes at once, on a busy machine too; less than any limit of the gateway as shipped.
DEADLINE_SECONDS = 15.0


@dataclass(frozen=True)
class ReceivedJob:
    frame: Frame
    image: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.image).hexdigest()


class GatewayPeer:
    """One connection of worker ``number``; received jobs wait in ``jobs`` for the test."""

    def __init__(self, path: Path, number: int = 0, *, max_batch: int = 4, **said: Any) -> None:
        """``said`` is what its HELLO says otherwise."""
        self.number = number
        self.max_batch = max_batch
        self.said = said
        self.answers_by_itself = False
        self.records_of_several = 0
        self.jobs: asyncio.Queue[ReceivedJob] = asyncio.Queue()
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.loans: dict[int, int] = {}  # by lease: the descriptor of a result's buffer
        self.closed = asyncio.Event()
        self.mappings: dict[int, mmap.mmap] = {}
        self.descriptors: dict[int, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.connect(str(path))
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def hello(self, state: str = "ready", **changes: Any) -> None:
        meta = {
            "protocol": 1,
            "number": self.number,
            "pid": os.getpid(),
            "state": state,
            "scheduling": "batch",
            "max_batch": self.max_batch,
            "model": "imagestats",
            "engine": "imagestats",
            "gpu_uuid": f"GPU-{self.number}",
            "gpu_index": self.number,
        }
        self.send(Frame(FrameType.HELLO, meta=meta | self.said | changes))

    def send(self, frame: Frame) -> None:
        self._socket.send(encode(frame))

    def send_raw(self, record: bytes, descriptors: list[int] | None = None) -> None:
        """Anything at all."""
        socket.send_fds(self._socket, [record], descriptors or [])

    def credit(self, count: int) -> None:
        self.send(Frame(FrameType.CREDIT, count=count))

    async def become_ready(self) -> None:
        self.hello("ready")
        welcome = await asyncio.wait_for(self.frames.get(), DEADLINE_SECONDS)
        assert welcome.type == FrameType.WELCOME
        self.credit(2 * self.max_batch)

    async def next_job(self) -> ReceivedJob:
        return await asyncio.wait_for(self.jobs.get(), DEADLINE_SECONDS)

    async def next_frame(self) -> Frame:
        return await asyncio.wait_for(self.frames.get(), DEADLINE_SECONDS)

    def answer(self, job: ReceivedJob, **changes: Any) -> None:
        self.send(self.result_of(job, **changes))

    def result_of(self, job: ReceivedJob, **changes: Any) -> Frame:
        """What ``answer`` sends."""
        meta = {
            "ok": True,
            "answer": {"sha256": job.sha256, "bytes": len(job.image)},
            "timing": {"preprocess_seconds": 0.001, "predict_seconds": 0.002},
        }
        frame = job.frame
        return Frame(FrameType.RESULT, frame.request, frame.lease, meta=meta | changes)

    def joins(self, job: ReceivedJob, joining: bool = True) -> None:
        """Say that a request is taken into a slot, or has been."""
        frame = job.frame
        meta = {"joining": joining}
        self.send(Frame(FrameType.JOINING, frame.request, frame.lease, meta=meta))

    def tell(self, job: ReceivedJob, text: str) -> None:
        """Send a piece of the answer to who streams it."""
        named = {"request": job.frame.request, "lease": job.frame.lease}
        piece = named | {"text": text, "terms": {"stream": True}}
        self.send(Frame(FrameType.CHUNK, meta={"pieces": [piece]}))

    async def borrow(self, job: ReceivedJob, length: int) -> Frame:
        """Ask for a buffer for a result; the front door's answer."""
        frame = job.frame
        self.send(Frame(FrameType.BORROW, frame.request, frame.lease, meta={"length": length}))
        lend = await self.next_frame()
        assert (lend.type, lend.lease) == (FrameType.LEND, frame.lease)
        return lend

    def hand_in(self, job: ReceivedJob, content: bytes, **changes: Any) -> None:
        """Write a file into the buffer that was lent, and answer with it."""
        descriptor = self.loans.pop(job.frame.lease)
        os.pwrite(descriptor, content, 0)
        os.close(descriptor)
        told = {"part": "file", "media_type": "image/png", "length": len(content)}
        self.answer(job, content=told | changes)

    def fail(self, job: ReceivedJob, kind: str, message: str = "it failed") -> None:
        error = {"type": kind, "message": message}
        frame = job.frame
        meta = {"ok": False, "error": error}
        self.send(Frame(FrameType.RESULT, frame.request, frame.lease, meta=meta))

    def close(self) -> None:
        if self.closed.is_set():
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        for descriptor in (*self.descriptors.values(), *self.loans.values()):
            os.close(descriptor)
        self.closed.set()

    def _read(self) -> None:
        descriptors = array.array("i")
        space = socket.CMSG_LEN(4 * descriptors.itemsize)
        try:
            record, control, _, _ = self._socket.recvmsg(RECORD_LIMIT_BYTES, space)
        except BlockingIOError:
            return
        except ConnectionResetError:
            record, control = b"", []
        if not record:
            self.close()
            return
        for _, _, data in control:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        frames = frames_in(record)
        self.records_of_several += len(frames) > 1
        for frame in frames:
            self._on_frame(frame, list(descriptors))

    def _on_frame(self, frame: Frame, descriptors: list[int]) -> None:
        if frame.type == FrameType.LEND:
            assert len(descriptors) == ("size" in frame.meta)
            self.loans.update((frame.lease, descriptor) for descriptor in descriptors)
            self.frames.put_nowait(frame)
            return
        if frame.type != FrameType.JOB:
            assert not descriptors
            if frame.type == FrameType.RETIRE:
                self.mappings.pop(frame.meta["buffer"])
                os.close(self.descriptors.pop(frame.meta["buffer"]))
            self.frames.put_nowait(frame)
            return
        job = ReceivedJob(frame, self._image(frame, descriptors))
        if self.answers_by_itself:
            self.answer(job)
        else:
            self.jobs.put_nowait(job)

    def _image(self, frame: Frame, descriptors: list[int]) -> bytes:
        where = frame.meta["body"]
        if "buffer" not in where:
            assert len(frame.body) == where["length"]
            return frame.body
        assert bool(descriptors) == where.get("fd", False)
        if descriptors:
            assert where["buffer"] not in self.mappings
            self.descriptors[where["buffer"]] = descriptors[0]
            self.mappings[where["buffer"]] = mmap.mmap(
                descriptors[0], where["size"], mmap.MAP_SHARED, mmap.PROT_READ
            )
        return self._mapped(where)

    def reread(self, job: ReceivedJob) -> bytes:
        """What lies in a job's buffer now."""
        return self._mapped(job.frame.meta["body"])

    def _mapped(self, where: dict[str, Any]) -> bytes:
        mapping = self.mappings[where["buffer"]]
        return mapping[where["offset"] : where["offset"] + where["length"]]


async def run_as_worker(path: Path, number: int, hold: bool, borrow: int) -> None:
    peer = GatewayPeer(path, number)
    peer.answers_by_itself = not hold and not borrow
    await peer.become_ready()
    while borrow:
        job = await peer.jobs.get()
        await peer.borrow(job, borrow)
        os.pwrite(peer.loans[job.frame.lease], job.image, 0)
    await peer.closed.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("--hold", action="store_true", help="take requests, never answer")
    parser.add_argument("--borrow", type=int, default=0, help="take a buffer, never answer")
    arguments = parser.parse_args()
    asyncio.run(run_as_worker(arguments.path, arguments.number, arguments.hold, arguments.borrow))
