# SPDX-License-Identifier: Apache-2.0
"""The worker's connection to the gateway: made again for ever, whoever restarts.

A result that could not be sent waits for the next connection. It is sent only to the very
gateway run that asked (WELCOME's ``instance``): another run numbers its requests anew, and an
answer must never reach another patient's request.
"""

import asyncio
import itertools
import logging
import os
import socket
from collections import deque
from contextlib import nullcontext
from typing import Any, Callable, ContextManager, Deque, Dict, List, Optional, Protocol, Tuple

from gpuwarden.worker.answers import FORM
from gpuwarden.worker.buffers import LentBuffers
from gpuwarden.worker.channel import Channel, close_all
from gpuwarden.worker.faults import WorkerError
from gpuwarden.worker.frames import (
    HEARTBEAT_SECONDS,
    PROTOCOL_VERSION,
    Frame,
    FrameError,
    FrameType,
)
from gpuwarden.worker.settings import Settings
from gpuwarden.worker.telling import Telling
from gpuwarden.worker.texts import TEXT_LIMIT_CHARACTERS, sendable

_log = logging.getLogger(__name__)

BACK_OFF_FIRST_SECONDS = 0.1
BACK_OFF_LONGEST_SECONDS = 2.0
PREFETCHED_BATCHES = 2  # one on the GPU, one being prepared
PREFETCHED_SLOTS = 2  # prepared while all slots are taken: one is decoded, one is handed over
NORMAL = "normal"  # the thermal state of a card that nobody says anything of
UNSENT_LIMIT = 64  # several batches; older ones were given to another worker long ago


class Session:
    """One connection, with what is only valid on it: buffers and request numbers."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        self.number = next(self._numbers)
        self.channel: Optional[Channel] = None
        self.buffers = LentBuffers()
        self.welcomed = False
        self.takes_answers = False  # the gateway takes ANSWERS
        self.results_bytes = 0  # the gateway's room for results when it connected; 0: it lends none
        self.instance: Optional[str] = None

    def alive(self) -> bool:
        """Whether frames can still go to the gateway on this connection."""
        return self.channel is not None and not self.channel.closed

    def together(self) -> ContextManager[None]:
        """What is sent on it while the block runs leaves at once, at the end of that."""
        return self.channel.together() if self.channel else nullcontext()


class Receiver(Protocol):
    """What the link tells the worker. Descriptors are the receiver's to close."""

    def on_job(self, session: Session, frame: Frame, descriptors: List[int]) -> None:
        """A request has come."""

    def on_cancel(self, session: Session, frame: Frame) -> None:
        """A request's caller has gone."""

    def on_retire(self, session: Session, buffer_number: int) -> None:
        """The gateway takes a buffer back."""

    def on_limit(self, batch_limit: Optional[int], thermal_state: str) -> None:
        """So many requests may run together from now on; None: as many as come together."""

    def on_lend(self, session: Session, frame: Frame, descriptors: List[int]) -> None:
        """The gateway has answered a BORROW."""

    def on_drain(self, session: Session) -> None:
        """The gateway wants no more from this worker on this connection."""

    def on_probe(self, session: Session, frame: Frame) -> None:
        """The gateway asks whether the card still answers."""

    def on_lost(self, session: Session) -> None:
        """The connection has ended."""


class GatewayLink:
    """Says HELLO, keeps the gateway informed of the state, carries requests and results."""

    def __init__(self, settings: Settings, receiver: Receiver) -> None:
        self._settings = settings
        self._receiver = receiver
        self._state = "loading"
        self._error = ""
        self._session: Optional[Session] = None
        self._unsent: Deque[Tuple[Optional[str], Frame]] = deque(maxlen=UNSENT_LIMIT)
        self._lost = asyncio.Event()
        self._memory: Dict[str, int] = {}
        self._figures: Dict[str, Any] = {}
        self.on_relieve: Callable[[], None] = lambda: None
        self._manner: Dict[str, Any] = {}
        self._telling = Telling(self._send_pieces)
        self._server: Dict[str, float] = {}
        self.batch_limit: Optional[int] = None  # what the gateway said last
        self.thermal_state = NORMAL

    async def run(self) -> None:
        """Connect and connect again, until cancelled."""
        pause, reported = BACK_OFF_FIRST_SECONDS, ""
        while True:
            try:
                session = self._connect()
            except OSError as error:
                if str(error) != reported:
                    reported = str(error)
                    _log.warning(
                        "%s: %s, trying on", self._settings.dispatch_socket, error.strerror
                    )
            else:
                reported = ""
                await self._lost.wait()
                if session.welcomed:
                    pause = BACK_OFF_FIRST_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 2, BACK_OFF_LONGEST_SECONDS)

    async def beat(self) -> None:
        """Prove to the gateway that this loop turns, until cancelled."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            session = self._session
            # Behind records that wait it would prove nothing new, and pile up.
            if session and session.welcomed and session.channel and not session.channel.pending:
                self._send(Frame(FrameType.HEARTBEAT))

    def set_manner(self, manner: Dict[str, Any]) -> None:
        """How the engine, which is loaded now, wants its requests; told with the next state."""
        self._manner = manner

    def set_state(self, state: str, error: str = "") -> None:
        """Tell the gateway of a new state or error; "ready" asks for work."""
        error = sendable(error, TEXT_LIMIT_CHARACTERS)
        became_ready = state == "ready" and self._state != "ready"
        if (state, error) == (self._state, self._error):
            return
        self._state, self._error = state, error
        self._send(Frame(FrameType.STATE, meta=self._state_meta()))
        if became_ready and self._session and self._session.welcomed:
            self._ask_for_work()

    def set_memory(self, reserved_bytes: int, allocated_bytes: int) -> None:
        """Tell the gateway the card memory this worker holds."""
        meta = {"vram_reserved_bytes": reserved_bytes, "vram_allocated_bytes": allocated_bytes}
        if meta != self._memory:
            self._memory = meta
            self._send(Frame(FrameType.MEMORY, meta=meta))

    def set_figures(self, figures: Dict[str, Any]) -> None:
        """Tell the gateway what the engine's allocator says."""
        self._figures = figures
        self._send(Frame(FrameType.FIGURES, meta=figures))

    def set_server(self, figures: Dict[str, float]) -> None:
        """Tell the gateway what the engine's server says of itself."""
        if figures != self._server:
            self._server = figures
            self._send(Frame(FrameType.SERVER, meta=figures))

    def answer(self, session: Session, job: Frame, meta: Dict[str, Any], body: bytes) -> None:
        """Send a request's RESULT, or keep it for the next connection.

        Without a ticket it is worth something to the same gateway run alone.
        """
        self._telling.flush()
        result = Frame(FrameType.RESULT, job.request, job.lease, job.batch, 0, meta, body)
        if session.alive() and session.channel:
            session.channel.send(result)
        elif isinstance(job.meta.get("ticket"), str):
            # Durable: the next gateway knows it by its ticket, whatever numbers it gives out.
            whole = {**meta, "ticket": job.meta["ticket"]}
            self._hand_over(Frame(FrameType.RESULT, meta=whole, body=body))
        elif session.instance is not None:
            self._unsent.append((session.instance, result))

    def probed(self, session: Session, probe: Frame, outcome: str, detail: str) -> None:
        """Answer a PROBE, on the connection that it came by."""
        if session.alive() and session.channel:
            meta = {"outcome": outcome, "detail": sendable(detail, TEXT_LIMIT_CHARACTERS)}
            session.channel.send(Frame(FrameType.PROBED, probe.request, meta=meta))

    def tell(self, session: Session, job: Frame, meta: Dict[str, Any]) -> None:
        """Send a piece of a request's answer; who is not connected any more gets none."""
        self._telling.add(session, {"request": job.request, "lease": job.lease, **meta})

    def _send_pieces(self, session: Session, pieces: List[Dict[str, Any]]) -> None:
        if session.alive() and session.channel:
            session.channel.send(Frame(FrameType.CHUNK, meta={"pieces": pieces}))

    def joining(self, session: Session, job: Frame, joining: bool) -> None:
        """Say that a request is taken into a slot, or that it has been."""
        if session.alive() and session.channel:
            meta = {"joining": joining}
            session.channel.send(Frame(FrameType.JOINING, job.request, job.lease, meta=meta))

    def _hand_over(self, result: Frame) -> None:
        """Give a durable job's result to whichever gateway is there, now or next."""
        if self._session and self._session.welcomed and self._session.alive():
            self._send(result)
        else:
            self._unsent.append((None, result))

    def say_goodbye(self) -> None:
        """Everything is answered and nothing more is wanted."""
        self._send(Frame(FrameType.BYE))

    async def close(self, seconds: float) -> None:
        """Let what was sent leave, then close."""
        session = self._session
        if session and session.channel:
            try:
                if session.channel.pending:
                    await asyncio.wait_for(session.channel.flushed(), seconds)
            except asyncio.TimeoutError:
                _log.warning("the gateway did not take the last records within %g s", seconds)
            session.channel.close()
            session.buffers.retire_all()

    def _connect(self) -> Session:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            # A full backlog is told at once: AF_UNIX never connects later.
            connection.setblocking(False)
            connection.connect(self._settings.dispatch_socket)
        except OSError:
            connection.close()
            raise
        self._lost.clear()
        session = Session()
        session.channel = Channel(
            connection,
            lambda frame, descriptors: self._on_frame(session, frame, descriptors),
            lambda reason: self._on_closed(session, reason),
        )
        self._session = session
        self._send(Frame(FrameType.HELLO, meta=self._hello_meta()))
        return session

    def _hello_meta(self) -> Dict[str, Any]:
        settings = self._settings
        return {
            "protocol": PROTOCOL_VERSION,
            "number": settings.number,
            "pid": os.getpid(),
            "scheduling": "batch",
            **self._state_meta(),
            "max_batch": settings.max_batch,
            "model": settings.model,
            "engine": settings.engine,
            "gpu_uuid": settings.gpu_uuid,
            "gpu_index": settings.gpu_index,
            "heartbeat_seconds": HEARTBEAT_SECONDS,
            "together": True,
        }

    def _state_meta(self) -> Dict[str, Any]:
        error = {"error": self._error} if self._error else {}
        return {"state": self._state, **error, **self._manner}

    def _on_frame(self, session: Session, frame: Frame, descriptors: List[int]) -> None:
        if frame.type == FrameType.JOB:
            self._receiver.on_job(session, frame, descriptors)
            return
        if frame.type == FrameType.LEND:
            self._receiver.on_lend(session, frame, descriptors)
            return
        close_all(descriptors)
        if frame.type == FrameType.WELCOME:
            self._welcome(session, frame)
        elif frame.type == FrameType.CANCEL:
            self._receiver.on_cancel(session, frame)
        elif frame.type == FrameType.RETIRE and isinstance(frame.meta.get("buffer"), int):
            self._receiver.on_retire(session, frame.meta["buffer"])
        elif frame.type == FrameType.LIMIT:
            limit = frame.meta.get("batch_limit")
            if isinstance(limit, int) and limit >= 1:
                self._limit(limit, str(frame.meta.get("thermal_state", NORMAL)))
        elif frame.type == FrameType.DRAIN:
            self._receiver.on_drain(session)
        elif frame.type == FrameType.PROBE:
            self._receiver.on_probe(session, frame)
        elif frame.type == FrameType.RELIEVE:
            self.on_relieve()

    def _welcome(self, session: Session, frame: Frame) -> None:
        instance = frame.meta.get("instance")
        session.welcomed = True
        if session.channel:
            session.channel.packs = frame.meta.get("together") is True
        session.takes_answers = frame.meta.get("answers") == FORM
        session.instance = instance if isinstance(instance, str) else None
        results_bytes = frame.meta.get("results_bytes")
        session.results_bytes = results_bytes if isinstance(results_bytes, int) else 0
        self._limit(None, NORMAL)  # if there is one, this gateway says so next
        _log.info("connected to gateway %s", frame.meta.get("gateway", "of unknown version"))
        unsent, kept = list(self._unsent), 0
        self._unsent.clear()
        for asked_by, result in unsent:
            if asked_by in (None, session.instance):
                kept += 1
                self._send(result)
        if unsent:
            _log.info("%d results were left, %d are still wanted", len(unsent), kept)
        if self._memory:
            self._send(Frame(FrameType.MEMORY, meta=dict(self._memory)))
        if self._figures:
            self._send(Frame(FrameType.FIGURES, meta=self._figures))
        if self._server:
            self._send(Frame(FrameType.SERVER, meta=self._server))
        if self._state == "ready":
            self._ask_for_work()

    def _limit(self, batch_limit: Optional[int], thermal_state: str) -> None:
        self.batch_limit, self.thermal_state = batch_limit, thermal_state
        self._receiver.on_limit(batch_limit, thermal_state)

    def _ask_for_work(self) -> None:
        credits = PREFETCHED_BATCHES * self._settings.max_batch
        if self._manner.get("scheduling") == "slots":
            credits = self._settings.max_batch + PREFETCHED_SLOTS
        self._send(Frame(FrameType.CREDIT, count=credits))

    def _on_closed(self, session: Session, reason: str) -> None:
        _log.warning("connection to the gateway ended: %s", reason)
        self._receiver.on_lost(session)
        self._lost.set()

    def _send(self, frame: Frame) -> None:
        if not self._session or not self._session.channel:
            return
        try:
            self._session.channel.send(frame)
        except FrameError as error:  # settings or an error text that no record can hold
            raise WorkerError(f"a frame does not fit: {error}", os.EX_SOFTWARE) from error
