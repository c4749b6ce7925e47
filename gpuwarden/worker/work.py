"""A request's way through the worker: prepared in a CPU process, run in its batch, answered.

While the GPU runs one batch, the CPU processes prepare the next. A RESULT is sent when nothing in
this worker reads the request's buffer any more, so the gateway may use it again at once.
"""

import asyncio
import itertools
import logging
import time
from dataclasses import dataclass
from enum import Enum
from typing import Any, Awaitable, Callable, Dict, List, Optional, Tuple

from gpuwarden.worker.batches import BatchTable
from gpuwarden.worker.buffers import BufferProblem
from gpuwarden.worker.channel import close_all
from gpuwarden.worker.direct import Direct
from gpuwarden.worker.engine import Audience
from gpuwarden.worker.faults import Failure, raise_error_of
from gpuwarden.worker.frames import Frame
from gpuwarden.worker.gpu import Answer
from gpuwarden.worker.link import Receiver, Session
from gpuwarden.worker.pool import Outcome, Pool, Prepared, StoredImage, Task

_log = logging.getLogger(__name__)

RETURNED = Failure("returned", "this worker takes no requests now: give it to another")
CANCELLED = Failure("cancelled", "its caller has gone")

Predict = Callable[[List[Any], Audience], Awaitable[List[Answer]]]
Reply = Callable[[Session, Frame, Dict[str, Any]], None]
PIECE_CHARACTERS = 8192  # of a CHUNK: six bytes of JSON each, at most


class _Stage(Enum):
    PREPARING = "preparing"
    PREPARED = "prepared"
    RUNNING = "running"


@dataclass
class _Job:
    session: Session
    frame: Frame
    stage: _Stage = _Stage.PREPARING
    leaving: Optional[Failure] = None  # to be told when the CPU process is done with its buffer
    prepared: Optional[Prepared] = None
    awaited: bool = True  # until its caller goes while it runs

    @property
    def terms(self) -> Optional[Dict[str, Any]]:
        return self.prepared.terms if self.prepared else None

    @property
    def batch(self) -> Tuple[int, int]:
        return self.session.number, self.frame.batch

    @property
    def deadline_nanoseconds(self) -> int:
        return int(self.frame.meta.get("deadline_boottime_ns") or 0)


class Work(Receiver):
    """All requests this worker holds. ``on_change`` is called whenever a count has changed."""

    def __init__(
        self, predict: Predict, reply: Reply, tell: Reply, on_change: Callable[[], None]
    ) -> None:
        self._predict = predict
        self._reply = reply
        self._tell = tell
        self._on_change = on_change
        self._jobs: Dict[int, _Job] = {}
        self._serials = itertools.count(1)
        self._batches = BatchTable()
        self._run: Optional[asyncio.Task[None]] = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.pool: Optional[Pool] = None
        self.direct: Optional[Direct] = None  # where the engine has no preprocess() of its own
        self.accepting = False  # until the model is loaded
        self.on_drain_asked: Callable[[Session], None] = lambda session: None
        self.on_session_lost: Callable[[Session], None] = lambda session: None
        self.on_probe_asked: Callable[[Session, Frame], None] = lambda session, frame: None
        self.answered = 0
        self.failed = 0
        self.running = 0

    # From the gateway.

    def on_job(self, session: Session, frame: Frame, descriptors: List[int]) -> None:
        """Have it prepared, or answer at once why not."""
        if not self.accepting:
            close_all(descriptors)
            self._answer(_Job(session, frame), RETURNED)
            return
        serial = next(self._serials)
        job = _Job(session, frame)
        self._jobs[serial] = job
        self._idle.clear()
        self._batches.add(job.batch, serial, frame.count)
        try:
            task = _task(serial, session, frame, descriptors)
        except BufferProblem as problem:
            _log.error("a request was refused: %s", problem)
            self._leave(serial, Failure("unknown_buffer", str(problem)))
            return
        except (KeyError, TypeError, ValueError) as error:
            _log.error("a request was refused: its JOB is malformed (%s)", type(error).__name__)
            self._leave(serial, Failure("bad_request", "the gateway's JOB is malformed"))
            return
        if self.direct and self.direct.takes(task):
            self._prepare_here(serial, task, self.direct)
            return
        assert self.pool is not None
        self.pool.submit(task)

    def _prepare_here(self, serial: int, task: Task, direct: Direct) -> None:
        try:
            prepared = direct.prepare(task)
        except OSError as error:  # no memory, or no descriptor, for one more mapping
            _log.error("a body can't be mapped: %s", error.strerror)
            self._leave(serial, Failure("engine_error", "its body can't be mapped"))
        else:
            self.on_prepared(serial, prepared)

    def on_cancel(self, session: Session, frame: Frame) -> None:
        """Drop a request whose caller has gone; on the GPU, its engine may end it early."""
        for serial, job in list(self._jobs.items()):
            same = (job.frame.request, job.frame.lease) == (frame.request, frame.lease)
            if same and job.session is session:
                job.awaited = False
                self._drop(serial, CANCELLED)

    def on_retire(self, session: Session, buffer_number: int) -> None:
        """Unmap a buffer here and in the CPU processes."""
        own = session.buffers.retire(buffer_number)
        if own is not None:
            self._retire([own])

    def on_limit(self, batch_limit: Optional[int]) -> None:
        """Run no more than so many together; what is on the GPU finishes as it is."""
        self._batches.limit = batch_limit

    def on_drain(self, session: Session) -> None:
        """Pass it on to whoever keeps the worker's state."""
        self.on_drain_asked(session)

    def on_probe(self, session: Session, frame: Frame) -> None:
        """Pass it on to whoever has the GPU thread."""
        self.on_probe_asked(session, frame)

    def on_lost(self, session: Session) -> None:
        """Forget what the gateway gives to others now; its buffers are worth nothing."""
        for serial, job in list(self._jobs.items()):
            if job.session is session:
                self._drop(serial, RETURNED)
        self._batches.forget(session.number)
        self._retire(session.buffers.retire_all())
        self.on_session_lost(session)

    # From the CPU processes.

    def on_prepared(self, serial: int, outcome: Outcome) -> None:
        """A CPU process is done with a request."""
        job = self._jobs[serial]
        if job.leaving:
            del self._jobs[serial]
            self._answer(job, job.leaving)
            self._settle()
        elif isinstance(outcome, Failure):
            self._leave(serial, outcome)
        else:
            job.stage, job.prepared = _Stage.PREPARED, outcome
            self._batches.prepared(job.batch, serial)
            self._advance()

    # From the worker.

    def drain(self) -> None:
        """Take nothing new and return all that is not on the GPU."""
        self.accepting = False
        for serial in list(self._jobs):
            self._drop(serial, RETURNED)

    async def idle(self) -> None:
        """Wait until nothing is held."""
        await self._idle.wait()

    def _retire(self, own_numbers: List[int]) -> None:
        if self.pool:
            self.pool.retire(own_numbers)
        if self.direct:
            self.direct.retire(own_numbers)

    def _drop(self, serial: int, failure: Failure) -> None:
        job = self._jobs[serial]
        if job.stage is _Stage.RUNNING or job.leaving:
            return
        assert self.pool is not None
        if job.stage is _Stage.PREPARED or self.pool.withdraw(serial):
            self._leave(serial, failure)
        else:
            job.leaving = failure
            self._batches.leave(job.batch, serial)
            self._advance()

    def _leave(self, serial: int, failure: Failure) -> None:
        job = self._jobs.pop(serial)
        self._batches.leave(job.batch, serial)
        self._answer(job, failure)
        self._advance()

    def _advance(self) -> None:
        """Put the next complete batch on the GPU, if it is free."""
        members = self._batches.take() if self._run is None else None
        if members is None:
            self._settle()
            return
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        late = [s for s in members if 0 < self._jobs[s].deadline_nanoseconds < now]
        for serial in late:
            self._answer(
                self._jobs.pop(serial), Failure("deadline_exceeded", "its deadline passed")
            )
        jobs = [self._jobs[serial] for serial in members if serial not in late]
        if not jobs:
            self._advance()
            return
        for job in jobs:
            job.stage = _Stage.RUNNING
        self.running = len(jobs)
        numbers = [serial for serial in members if serial not in late]
        self._run = asyncio.get_running_loop().create_task(self._run_batch(numbers, jobs))
        self._run.add_done_callback(raise_error_of)
        self._on_change()

    async def _run_batch(self, serials: List[int], jobs: List[_Job]) -> None:
        started = time.monotonic()
        items = [job.prepared.value for job in jobs if job.prepared]
        answers = await self._predict(items, _Callers(self._hand_on, jobs))
        seconds = time.monotonic() - started
        for serial, job, answer in zip(serials, jobs, answers):
            del self._jobs[serial]
            self._answer(job, answer, seconds)
        self._run = None
        self.running = 0
        self._advance()

    def _hand_on(self, job: _Job, text: str) -> None:
        """Send a piece of an answer to who streams."""
        terms = job.terms
        if not terms or not terms["stream"] or not job.awaited or not job.session.alive():
            return
        for start in range(0, len(text), PIECE_CHARACTERS):
            piece = {"text": text[start : start + PIECE_CHARACTERS], "terms": terms}
            self._tell(job.session, job.frame, piece)

    def more_waits(self) -> bool:
        """Whether the GPU has work right after the batch that runs."""
        return self._batches.waiting()

    def _answer(self, job: _Job, answer: Answer, predict_seconds: float = 0.0) -> None:
        if isinstance(answer, Failure):
            given_back = answer in (RETURNED, CANCELLED)
            self.failed += not given_back
            if given_back and not job.session.alive():
                return  # whoever asked has given it to another by now
            self._reply(job.session, job.frame, answer.as_meta())
            return
        self.answered += 1
        prepare_seconds = job.prepared.seconds if job.prepared else 0.0
        timing = {
            "preprocess_seconds": round(prepare_seconds, 6),
            "predict_seconds": round(predict_seconds, 6),
        }
        meta = {"ok": True, "answer": answer, "timing": timing}
        if job.terms:
            meta["terms"] = job.terms
        self._reply(job.session, job.frame, meta)

    def _settle(self) -> None:
        if not self._jobs:
            self._idle.set()
        self._on_change()


class _Callers(Audience):
    """A batch's callers: heard of on the GPU thread, told on the loop's."""

    def __init__(self, hand_on: Callable[[_Job, str], None], jobs: List[_Job]) -> None:
        self._loop = asyncio.get_running_loop()
        self._hand_on = hand_on
        self._jobs = jobs

    def hear(self, index: int, text: str) -> None:
        """A piece of an answer."""
        if text:
            self._loop.call_soon_threadsafe(self._hand_on, self._jobs[index], text)

    def waits(self, index: int) -> bool:
        """Whether an item's caller is still there."""
        return self._jobs[index].awaited


def _task(serial: int, session: Session, frame: Frame, descriptors: List[int]) -> Task:
    spare = list(descriptors)
    try:
        body = frame.meta.get("body")
        if not isinstance(body, dict):
            raise ValueError("body")
        content: Any = frame.body
        if "buffer" in body:
            content = session.buffers.locate(body, _own(body, spare))
        images = tuple(
            StoredImage(
                str(image["id"]),
                str(image["media_type"]),
                session.buffers.locate(image, _own(image, spare)),
            )
            for image in frame.meta.get("images") or []
        )
    finally:
        close_all(spare)
    meta = {
        "form": str(frame.meta.get("form") or "predict"),
        "question": frame.meta.get("question"),
        "media_type": str(frame.meta.get("media_type") or ""),
        "parameters": dict(frame.meta.get("parameters") or {}),
    }
    deadline = int(frame.meta.get("deadline_boottime_ns") or 0)
    return Task(serial, meta, content, images, deadline)


def _own(where: Dict[str, Any], descriptors: List[int]) -> List[int]:
    """Takes the descriptor that belongs to a buffer out of those that came with a JOB."""
    return [descriptors.pop(0)] if where.get("fd") and descriptors else []
