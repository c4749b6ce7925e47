# SPDX-License-Identifier: Apache-2.0
"""While batches are short, the GPU thread listens to the gateway by itself.

Otherwise the loop takes each request and wakes the GPU thread for it, and on processors that rest
waking a thread is dearer than all that a short batch does. So after some short batches in a row
the loop stops reading and lends the connection to the GPU thread, which takes a record, runs its
batch and sends the answers. It gives the connection back, with what it has taken and can't do, at
the first thing that is not plain: any frame but a JOB with a small body for ``predict``, an answer
that needs the loop, a batch that was not short, other work for this thread, a while of silence.

The loop looks after it all the while. A batch that turns out to be long is adopted: from then on
it is as if the loop had given it to the GPU thread, and the loop reads on, so that callers may
leave, limits may come, and whoever hangs is seen to. Exactly one of the two reads at any time.
"""

import asyncio
import select
import socket
import time
from dataclasses import dataclass
from typing import Callable, List, Optional, Protocol, Sequence, Tuple

from gpuwarden.worker.allocator import Memory
from gpuwarden.worker.channel import Received
from gpuwarden.worker.direct import Direct
from gpuwarden.worker.engine import Audience, RequestError
from gpuwarden.worker.frames import Frame, FrameType
from gpuwarden.worker.gpu import GpuThread, Raised
from gpuwarden.worker.held import Held, Stage
from gpuwarden.worker.link import Session
from gpuwarden.worker.pool import Prepared
from gpuwarden.worker.running import Answers, Running

SHORT_SECONDS = 0.001  # some ten times what waking a thread takes
SHORT_IN_A_ROW = 16
LONG_SECONDS = 0.01  # a batch that runs for longer is the loop's
LOOK_SECONDS = 0.05  # between the loop's looks: how long a caller's leaving may go unheard
QUIET_SECONDS = 0.5  # without a request: the loop need not look any more

JOB = int(FrameType.JOB)
# What the JOB of a plain request says. A durable job has a ticket, too, and a chat may have images.
OF_PLAIN = {"form", "question", "media_type", "parameters", "deadline_boottime_ns", "body"}

Run = Callable[[List[object], Audience, Running], Tuple[Answers, Optional[Memory]]]


class Keeper(Protocol):
    """Who keeps the requests that the worker holds.

    :ivar answered: counted by the GPU thread while it listens, by the loop else.
    """

    accepting: bool
    answered: int
    direct: Optional[Direct]

    def may_run(self, count: int) -> bool:
        """Whether so many may run together (GPU thread)."""

    def audience_of(self, jobs: Sequence[Held]) -> Audience:
        """Who waits for the answers of a batch."""

    def adopt(self, running: Running) -> None:
        """Hold a batch that runs already, or has run."""

    def done(self, running: Running, answers: Answers) -> None:
        """A batch that it holds has run."""

    def settle(self) -> None:
        """What it holds has changed."""


@dataclass
class Left:
    """What the GPU thread leaves to the loop.

    :ivar running: a batch that has run, whose end is the loop's, with its answers.
    :ivar received: what it has taken and not done.
    """

    running: Optional[Running] = None
    answers: Answers = None
    received: Optional[Received] = None


class Reads:
    """Who reads: the loop, always."""

    @property
    def is_near(self) -> bool:
        """Whether the loop is to hear of the next batch's end soon. Any thread may ask."""
        return False

    def judge(self, running: Running) -> None:
        """A batch has ended that the loop gave to the GPU thread."""

    def begins(self) -> bool:
        """Lend the connection if all is ready for it: nothing is held. Whether it is lent."""
        return False

    def end(self) -> None:
        """Let the loop read as soon as what runs has run."""


class Listening(Reads):
    """The GPU thread, while batches are short; else the loop."""

    def __init__(self, gpu: GpuThread, keeper: Keeper) -> None:
        self._gpu = gpu
        self._keeper = keeper
        self._run: Optional[Run] = None
        self._tell_memory: Callable[[Optional[Memory]], None] = lambda memory: None
        self._memory: Optional[Memory] = None
        self._short = 0  # batches in a row
        self._session: Optional[Session] = None  # whose connection the loop doesn't read
        self._is_lent = False  # the GPU thread has it, or has not said yet that it is back
        self._is_wanted = False  # back
        self._current: Optional[Tuple[Running, List[Frame]]] = None  # runs; came with it
        self._counted = 0
        self._timer: Optional[asyncio.TimerHandle] = None
        self._bell, self._bell_heard = socket.socketpair()
        self._bell_heard.setblocking(False)
        gpu.before_submit = self._call_back

    def allow(self, run: Run, tell_memory: Callable[[Optional[Memory]], None]) -> None:
        """From now on it may be; not on a simulated card, which hears of each batch from the loop.

        :param run: a batch, on the GPU thread; its answers may leave there.
        :param tell_memory: what the engine says of its memory, in the loop.
        """
        self._run, self._tell_memory = run, tell_memory

    # In the loop.

    @property
    def is_near(self) -> bool:
        """See Reads."""
        return self._run is not None and self._short + 1 >= SHORT_IN_A_ROW

    def judge(self, running: Running) -> None:
        """See Reads."""
        if not running.has_left or running.seconds >= SHORT_SECONDS:
            self.end()
            return
        self._short += 1
        is_free = self._session is None and not self._is_lent
        if self._run and self._short >= SHORT_IN_A_ROW and is_free and self._keeper.accepting:
            self._rest(running.session)

    def begins(self) -> bool:
        """See Reads."""
        session = self._session
        if session is None or self._is_lent:
            return session is not None
        if not session.channel or session.channel.closed or session.channel.pending:
            self.end()
            return False
        self._gpu.submit(self._is_back, self._listen, session)
        self._is_lent = True
        return True

    def end(self) -> None:
        """See Reads."""
        self._short = 0
        if self._is_lent:
            self._call_back()
        else:
            self._read_on()

    def _call_back(self) -> None:
        if self._is_lent and not self._is_wanted:
            self._is_wanted = True
            self._bell.send(b"!")

    def close(self) -> None:
        """Nothing listens any more."""
        self._read_on()
        self._bell.close()
        self._bell_heard.close()

    def _rest(self, session: Session) -> None:
        """Take no more: what is held will soon have run."""
        if session.channel and not session.channel.closed:
            self._session = session
            session.channel.stop_reading()
            self._look_later()

    def _read_on(self) -> None:
        session, self._session = self._session, None
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if session and session.channel:
            session.channel.read_on()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._is_lent:
            self.end()  # what is held runs on and on
            return
        since, current = self._gpu.busy_since, self._current
        is_long = since is not None and time.monotonic() - since > LONG_SECONDS
        if is_long and current and current[0].take_end():
            self._adopt(*current)
            return
        if self._keeper.answered != self._counted:
            self._counted = self._keeper.answered
            self._keeper.settle()
        self._look_later()

    def _adopt(self, running: Running, rest: List[Frame]) -> None:
        session = self._session
        self._keeper.adopt(running)
        self._read_on()
        if rest and session and session.channel:
            session.channel.deal_with((rest, []))

    def _is_back(self, left: Optional[Left], error: Raised) -> None:
        if left is None:
            raise error or RuntimeError("nothing was left")
        session, self._short = self._session, 0
        if left.running and session:  # else it was adopted while it ran
            self._keeper.adopt(left.running)
        self._read_on()
        self._is_lent = False
        if self._is_wanted:
            self._is_wanted = False
            self._bell_heard.recv(1)
        if left.running:
            self._keeper.done(left.running, left.answers)
        if left.received and session and session.channel:
            session.channel.deal_with(left.received)
        self._keeper.settle()

    # On the GPU thread.

    def _listen(self, session: Session) -> Left:
        channel = session.channel
        assert channel is not None
        poll = select.poll()
        for number in (channel.fileno(), self._bell_heard.fileno()):
            if number < 0:
                return Left()  # closed meanwhile
            poll.register(number, select.POLLIN)
        while True:
            ready = poll.poll(QUIET_SECONDS * 1000)
            if self._is_wanted or not ready or channel.closed:
                return Left()
            left = self._take_up(session, channel.take())
            if left:
                return left

    def _take_up(self, session: Session, received: Optional[Received]) -> Optional[Left]:
        """Run all that was received, or leave it."""
        if received is None:
            return None
        if isinstance(received, str) or received[1]:
            return Left(received=received)
        frames = received[0]
        while frames:
            count = frames[0].count
            running = self._running_of(session, frames[:count])
            if running is None:
                return Left(received=(frames, []))
            frames = frames[count:]
            left = self._run_one(running, frames)
            if left:
                return left
        return None

    def _running_of(self, session: Session, frames: List[Frame]) -> Optional[Running]:
        """The batch that these frames are, if it is one, whole and plain."""
        direct = self._keeper.direct
        if direct is None or not frames or not self._keeper.may_run(len(frames)):
            return None
        batch, now, jobs = frames[0].batch, time.clock_gettime_ns(time.CLOCK_BOOTTIME), []
        for frame in frames:
            if frame.batch != batch or frame.count != len(frames) or not is_plain(frame, now):
                return None
            try:
                request = direct.request_of(frame.meta, memoryview(frame.body))
            except (RequestError, TypeError, ValueError):
                return None  # the loop says what is wrong with it
            jobs.append(Held(session, frame, Stage.RUNNING, None, Prepared(request, 0.0)))
        return Running([], jobs, is_plain=True)

    def _run_one(self, running: Running, rest: List[Frame]) -> Optional[Left]:
        """Run a batch; what is the loop's, if anything is."""
        assert self._run is not None
        items = [job.prepared.value for job in running.jobs if job.prepared]
        self._current = running, rest
        answers, memory = self._run(items, self._keeper.audience_of(running.jobs), running)
        self._gpu.unmark()
        self._current = None
        if memory != self._memory:
            self._memory = memory
            self._gpu.pass_on(self._tell_memory, memory)
        if not running.take_end():
            return Left(running, answers)
        if not running.has_left:
            return Left(running, answers, (rest, []))
        self._keeper.answered += len(running.jobs)
        return None if running.seconds < SHORT_SECONDS else Left(received=(rest, []))


def is_plain(frame: Frame, now_nanoseconds: int) -> bool:
    """Whether it is a JOB in time, for ``predict`` alone, with all that belongs to it.

    :param now_nanoseconds: by CLOCK_BOOTTIME.
    """
    said = frame.meta
    if frame.type != JOB or not OF_PLAIN.issuperset(said):
        return False
    body, deadline = said.get("body"), said.get("deadline_boottime_ns")
    if not isinstance(body, dict) or "buffer" in body or not isinstance(deadline, int):
        return False
    return said.get("form", "predict") == "predict" and not 0 < deadline < now_nanoseconds
