# SPDX-License-Identifier: Apache-2.0
"""One worker's connection: its frames in both directions, and what it holds of ours."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gpuwarden import __version__
from gpuwarden.gateway.body import Body
from gpuwarden.gateway.channel import RecordChannel
from gpuwarden.gateway.jobmeta import job_meta
from gpuwarden.gateway.messages import (
    Figures,
    Hello,
    Joining,
    Memory,
    MessageError,
    Piece,
    Pieces,
    Probed,
    ServerSaid,
    StateChange,
    Told,
    Wish,
    answers_in,
    parse,
    result_in,
)
from gpuwarden.gateway.outputs import OutputBuffer
from gpuwarden.gateway.peers import Peer
from gpuwarden.gateway.probe import Probes
from gpuwarden.gateway.relief import Relief
from gpuwarden.gateway.work import UNBOUNDED, Seat, Weight
from gpuwarden.values import ThermalState
from gpuwarden.worker.answers import FORM
from gpuwarden.worker.frames import (
    PROTOCOL_VERSION,
    Frame,
    FrameError,
    FrameType,
    encode,
    record_of,
)
from gpuwarden.worker.together import frames_in, together

log = logging.getLogger(__name__)

Said = tuple[Frame, Told]
Sent = tuple[int, int, Body, int]  # request, lease, body, deadline by CLOCK_BOOTTIME; 0: none
JOB = int(FrameType.JOB)
CREDIT_LIMIT = 4096  # more outstanding requests than any engine takes


class LinkOwner(Protocol):
    """Whom a link tells what its worker says."""

    on_figures: Callable[["WorkerLink", Figures], None]  # what it says of its memory

    @property
    def results_bytes(self) -> int:
        """The largest result that there may be room for."""

    def connected(self, link: "WorkerLink", hello: Hello) -> None:
        """The worker has introduced itself."""

    def state_changed(self, link: "WorkerLink", state: str) -> None:
        """The worker loads, is ready or drains."""

    def granted(self, link: "WorkerLink", credit: int) -> None:
        """The worker takes more requests."""

    def answered(self, link: "WorkerLink", said: list[Said]) -> None:
        """The worker answered leases, together."""

    def told(self, link: "WorkerLink", piece: Piece) -> None:
        """The worker sent a piece of the answer to a lease."""

    def joins(self, link: "WorkerLink", frame: Frame, joining: bool) -> None:
        """The worker takes a request into a slot, or has done so."""

    def asked(self, link: "WorkerLink", frame: Frame, wish: Wish) -> None:
        """The worker needs a buffer for a large result. Raises MessageError."""

    def lost(self, link: "WorkerLink") -> None:
        """The connection is gone."""

    def changed(self) -> None:
        """Something to publish has changed."""


@dataclass
class Tally:
    """What a worker has done, over all its connections to this gateway."""

    requests: int = 0
    failures: int = 0
    last_error: str = ""


class WorkerLink:
    """A worker as the gateway knows it; ``channel`` is set by whoever accepted the connection."""

    channel: RecordChannel

    def __init__(self, key: int, peer: Peer, owner: LinkOwner) -> None:
        self.key = key
        self.peer = peer
        self.number = peer.number if peer.number is not None else -1
        self.packs = False  # whether it takes several frames in one record
        self.model = ""
        self.state = "loading"
        self.tally = Tally()
        self.memory: Memory | None = None
        self.figures: Figures | None = None
        self.relief = Relief()
        self.server: ServerSaid | None = None
        self.seat = Seat(key, card=0, max_batch=1)
        self.leases: dict[int, Body] = {}
        self.loans: dict[int, OutputBuffer] = {}  # by lease: what it writes a large result into
        self.mapped: set[int] = set()  # buffers whose descriptor it was given
        self.probes = Probes(self.send)
        self._owner = owner
        self._introduced = False
        self._beats = False
        self._heard_seconds = time.monotonic()
        self._limit = (self.seat.max_batch, ThermalState.NORMAL)  # as the worker knows it

    # --- to the worker

    def send(self, frame: Frame, descriptors: list[int] | None = None) -> None:
        """Send one frame."""
        self.channel.send(encode(frame), descriptors)

    def send_batch(self, batch: int, jobs: list[Sent]) -> None:
        """Send a batch's requests; each lease holds its body until the worker's RESULT."""
        records: list[bytes] = []
        count = len(jobs)
        for request, lease, body, deadline in jobs:
            descriptors: list[int] = []
            meta = job_meta(body, deadline, self.mapped, descriptors)
            self.leases[lease] = body
            record = record_of(JOB, count, (request, lease, batch), meta, body.inline)
            if self.packs and not descriptors:
                records.append(record)
                continue
            self._send_together(records)
            records = []
            self.channel.send(record, descriptors)
        self._send_together(records)

    def _send_together(self, records: list[bytes]) -> None:
        for record in together(records):
            self.channel.send(record)

    def lend(self, wish: Frame, buffer: OutputBuffer) -> None:
        """Have the worker write its result into a buffer."""
        self.loans[wish.lease] = buffer
        frame = Frame(FrameType.LEND, wish.request, wish.lease, meta={"size": buffer.size})
        self.send(frame, [buffer.descriptor])

    def refuse(self, wish: Frame, kind: str, message: str) -> None:
        """Tell the worker why its result can't be taken; it answers with that."""
        error = {"type": kind, "message": message}
        self.send(Frame(FrameType.LEND, wish.request, wish.lease, meta={"error": error}))

    def retire(self, buffer: int) -> None:
        """Have the worker unmap a buffer, if it mapped it."""
        if buffer in self.mapped:
            self.mapped.discard(buffer)
            self.send(Frame(FrameType.RETIRE, meta={"buffer": buffer}))

    def limit(self, batch_limit: int, state: ThermalState) -> None:
        """Have the worker run no more requests together, also of what it has already."""
        if (batch_limit, state) != self._limit:
            self._limit = (batch_limit, state)
            meta = {"batch_limit": batch_limit, "thermal_state": state.value}
            self.send(Frame(FrameType.LIMIT, meta=meta))

    def drain(self) -> None:
        """Have the worker finish what it has and take no more."""
        self.send(Frame(FrameType.DRAIN))

    def close(self) -> None:
        """Hang up."""
        self.channel.close()

    # --- from the worker

    def on_record(self, record: bytes) -> None:
        """Take one record; a worker that breaks the protocol is hung up on."""
        self._heard_seconds = time.monotonic()
        said: list[Said] = []
        try:
            for frame in frames_in(record):
                if frame.type == FrameType.RESULT and self._introduced:
                    said.append((frame, result_in(frame.meta)))
                    continue
                if frame.type == FrameType.ANSWERS and self._introduced:
                    said += answers_in(frame)
                    continue
                self._on_results(said)
                said = []
                if self.channel.is_open:
                    self._on_frame(frame)
        except (FrameError, MessageError) as error:
            self._on_results(said)  # what it said before counts
            log.error("worker %d breaks the protocol, hanging up: %s", self.number, error)
            self.close()
            return
        self._on_results(said)

    def _on_results(self, said: list[Said]) -> None:
        if said and self.channel.is_open:
            self._owner.answered(self, said)

    def on_closed(self) -> None:
        """The channel is closed."""
        self.probes.lost()
        self._owner.lost(self)

    @property
    def published_state(self) -> str:
        """The state as the snapshot names it."""
        if self.state == "ready" and self.seat.drained:
            return "draining"
        return "busy" if self.state == "ready" and self.seat.batches else self.state

    @property
    def silent_seconds(self) -> float | None:
        """How long nothing was heard of it; None for one that promised no heartbeat."""
        return time.monotonic() - self._heard_seconds if self._beats else None

    def _on_frame(self, frame: Frame) -> None:
        if not self._introduced:
            if frame.type != FrameType.HELLO:
                raise MessageError(f"frame {frame.type} before HELLO")
            self._on_hello(parse(Hello, frame.meta))
            return
        match frame.type:
            case FrameType.STATE:
                self._on_state(parse(StateChange, frame.meta))
            case FrameType.CREDIT:
                if self.seat.credit + self.seat.outstanding + frame.count > CREDIT_LIMIT:
                    raise MessageError(f"more than {CREDIT_LIMIT} credits")
                self._owner.granted(self, frame.count)
            case FrameType.CHUNK | FrameType.BORROW | FrameType.JOINING:
                self._on_part(frame)
            case FrameType.MEMORY | FrameType.FIGURES:
                self._on_memory(frame)
            case FrameType.BYE:
                self._on_state(StateChange(state="draining"))
            case FrameType.HELLO:
                raise MessageError("a second HELLO")
            case _:
                self._on_sign_of_life(frame)

    def _on_part(self, frame: Frame) -> None:
        """What comes of a request before its RESULT."""
        if frame.type == FrameType.CHUNK:
            for piece in parse(Pieces, frame.meta).pieces:
                self._owner.told(self, piece)
        elif frame.type == FrameType.JOINING:
            self._owner.joins(self, frame, parse(Joining, frame.meta).joining)
        else:
            self._owner.asked(self, frame, parse(Wish, frame.meta))

    def _on_memory(self, frame: Frame) -> None:
        """What it holds of its card, after a batch; every five seconds all that is known of it."""
        if frame.type == FrameType.MEMORY:
            self.memory = parse(Memory, frame.meta)
            self._owner.changed()
            return
        figures = self.figures = parse(Figures, frame.meta)
        reserved, allocated = figures.reserved_bytes, figures.allocated_bytes
        if reserved is not None and allocated is not None:
            self.memory = Memory(vram_reserved_bytes=reserved, vram_allocated_bytes=allocated)
        self._owner.on_figures(self, figures)

    def _on_sign_of_life(self, frame: Frame) -> None:
        """What says no more than how the worker is; of a heartbeat, that it came is all of it."""
        if frame.type == FrameType.SERVER:
            self.server = parse(ServerSaid, frame.meta)
            self._owner.changed()
        elif frame.type == FrameType.PROBED:
            self.probes.answered(frame, parse(Probed, frame.meta))
        elif frame.type != FrameType.HEARTBEAT:
            log.debug("worker %d sent frame %d, unknown here", self.number, frame.type)

    def _on_hello(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION:
            raise MessageError(f"protocol {hello.protocol}, this side speaks {PROTOCOL_VERSION}")
        self._take_place(hello)
        self._introduced = True
        self._beats = hello.heartbeat_seconds is not None
        self.model = hello.model
        self.state = hello.state
        self.packs = hello.together
        self.seat.model = hello.model
        self.seat.max_batch = hello.max_batch
        self._limit = (hello.max_batch, ThermalState.NORMAL)
        self._go_by(hello)
        log.info(
            "worker %d (pid %d) connected, %s",
            self.number,
            self.peer.pid,
            hello.state,
            extra={"fields": {"WORKER": str(self.number), "GPU_UUID": hello.gpu_uuid or ""}},
        )
        room = self._owner.results_bytes
        takes = {"together": True, "answers": FORM}
        welcome = {"gateway": __version__, "results_bytes": room, **takes}
        self.send(Frame(FrameType.WELCOME, meta=welcome))
        self._owner.connected(self, hello)

    def _take_place(self, hello: Hello) -> None:
        """Which worker it is, and on which card: its unit tells, where it runs in one."""
        if self.peer.number is None:
            self.number = hello.number
        elif hello.number != self.number:
            log.warning("worker %d calls itself %d; its unit counts", self.number, hello.number)
        told, card = hello.gpu_index or 0, self.peer.card
        if card is not None and card != told:
            text = "worker %d says that it runs on GPU %d; its slice counts, of GPU %d"
            log.warning(text, self.number, told, card)
        self.seat.card = told if card is None else card

    def _go_by(self, said: Hello | StateChange) -> None:
        """Take over how the worker wants its requests."""
        if said.scheduling is None or self.seat.batches:
            return
        self.seat.slots = said.scheduling == "slots"
        pixels, tokens = said.batch_pixels, said.batch_tokens
        self.seat.budget = Weight(pixels or UNBOUNDED.pixels, tokens or UNBOUNDED.tokens)
        self.seat.mixed = said.batch_mixed

    def _on_state(self, change: StateChange) -> None:
        self._go_by(change)
        self.state = change.state
        if change.error:
            self.tally.last_error = change.error
        self._owner.state_changed(self, change.state)
