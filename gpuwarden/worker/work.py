# SPDX-License-Identifier: Apache-2.0
"""A request's way through the worker: prepared in a CPU process, run in its batch, answered.

While the GPU runs one batch, the CPU processes prepare the next. A RESULT is sent when nothing in
this worker reads the request's buffer any more, so the gateway may use it again at once.
"""

import asyncio
import itertools
import logging
import time
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from gpuwarden.worker.batches import BatchTable
from gpuwarden.worker.callers import Callers
from gpuwarden.worker.channel import close_all
from gpuwarden.worker.direct import Direct
from gpuwarden.worker.engine import Audience
from gpuwarden.worker.faults import Failure, raise_error_of
from gpuwarden.worker.frames import INLINE_LIMIT_BYTES, Frame
from gpuwarden.worker.held import LATE, RETURNED, Held, Stage, result_of
from gpuwarden.worker.lending import Borrowed
from gpuwarden.worker.link import Receiver, Session
from gpuwarden.worker.listening import Reads
from gpuwarden.worker.outputs import WHOLE, Answer, Large, for_chat, text_of
from gpuwarden.worker.pool import Outcome, Pool
from gpuwarden.worker.running import Answers, Given, Running
from gpuwarden.worker.slots import CANCELLED, Guests, Places
from gpuwarden.worker.tasks import task_or_failure
from gpuwarden.worker.texts import pieces_of

_log = logging.getLogger(__name__)

Done = Callable[[Answers], None]
Predict = Callable[[List[Any], Audience, Running, Done], None]
Reply = Callable[[Session, Frame, Dict[str, Any], bytes], None]
Tell = Callable[[Session, Frame, Dict[str, Any]], None]


class Work(Receiver, Guests):
    """All requests this worker holds. ``on_change`` is called whenever a count has changed."""

    def __init__(
        self, predict: Predict, reply: Reply, tell: Tell, on_change: Callable[[], None]
    ) -> None:
        self._predict = predict
        self._reply = reply
        self._tell = tell
        self.on_joining: Callable[[Session, Frame, bool], None] = lambda *what: None
        self._on_change = on_change
        self._jobs: Dict[int, Held] = {}
        self._serials = itertools.count(1)
        self._batches = BatchTable()
        self.given = Given()
        self._borrowed = Borrowed()
        self._leaving: Set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.pool: Optional[Pool] = None
        self.slots: Optional[Places] = None  # of an engine that takes one by one
        self.direct: Optional[Direct] = None  # where the engine has no preprocess() of its own
        self.listening = Reads()
        self.accepting = False  # until the model is loaded
        self.on_drain_asked: Callable[[Session], None] = lambda session: None
        self.on_session_lost: Callable[[Session], None] = lambda session: None
        self.on_probe_asked: Callable[[Session, Frame], None] = lambda session, frame: None
        self.answered = self.failed = self.running = 0

    # From the gateway.

    def on_job(self, session: Session, frame: Frame, descriptors: List[int]) -> None:
        """Have it prepared, or answer at once why not."""
        if not self.accepting:
            close_all(descriptors)
            self._answer(Held(session, frame), RETURNED)
            return
        serial = next(self._serials)
        job = Held(session, frame)
        self._jobs[serial] = job
        if len(self._jobs) == 1:
            self._idle.clear()
        self._batches.add(job.batch, serial, frame.count)
        task = task_or_failure(serial, session, frame, descriptors)
        if isinstance(task, Failure):
            self._leave(serial, task)
            return
        if self.direct and self.direct.takes(task):
            self.on_prepared(serial, self.direct.prepare(task))
            return
        assert self.pool is not None
        self.pool.submit(task)

    def on_cancel(self, session: Session, frame: Frame) -> None:
        """Drop a request whose caller has gone; on the GPU, its engine may end it early."""
        for serial, job in list(self._jobs.items()):
            same = (job.frame.request, job.frame.lease) == (frame.request, frame.lease)
            if same and job.session is session:
                job.awaited = False
                self._drop(serial, RETURNED)  # it has not begun, or runs on and says how it ended
        self._advance()

    def on_retire(self, session: Session, buffer_number: int) -> None:
        """Unmap a buffer here and in the CPU processes."""
        own = session.buffers.retire(buffer_number)
        if own is not None:
            self._retire([own])

    def on_lend(self, session: Session, frame: Frame, descriptors: List[int]) -> None:
        """A large result may go into the gateway's buffer, or may not."""
        self._borrowed.answered(session, frame, descriptors)

    def on_limit(self, batch_limit: Optional[int], thermal_state: str) -> None:
        """Run no more than so many together; what is on the GPU finishes as it is."""
        self._batches.limit = batch_limit
        if self.slots is not None:
            self.slots.set_limit(batch_limit, thermal_state)
        elif recalled := self.given.recall():
            self._take_back(recalled)
            self._advance()

    def on_drain(self, session: Session) -> None:
        """For whoever keeps the worker's state."""
        self.on_drain_asked(session)

    def on_probe(self, session: Session, frame: Frame) -> None:
        """For whoever has the GPU thread."""
        self.on_probe_asked(session, frame)

    def on_lost(self, session: Session) -> None:
        """Forget what the gateway gives to others now; its buffers are worth nothing."""
        self.listening.end()
        self.given.catch_up()
        for serial, job in list(self._jobs.items()):
            if job.session is session:
                job.awaited = job.awaited and job.outlives_its_gateway
                self._drop(serial, RETURNED)
        self._batches.forget(session.number)
        self._retire(session.buffers.retire_all())
        self.on_session_lost(session)
        self._advance()

    # From the CPU processes.

    def on_prepared(self, serial: int, outcome: Outcome) -> None:
        """A CPU process is done with a request."""
        job = self._jobs[serial]
        if job.leaving:
            del self._jobs[serial]
            self._answer(job, job.leaving)
            self.settle()
        elif isinstance(outcome, Failure):
            self._leave(serial, outcome)
        else:
            job.stage, job.prepared = Stage.PREPARED, outcome
            if self._batches.prepared(job.batch, serial):
                self._advance()

    # From the worker.

    def drain(self) -> None:
        """Take nothing new and return all that is not on the GPU."""
        self.accepting = False
        self.listening.end()
        self.given.catch_up()
        for serial in list(self._jobs):
            self._drop(serial, RETURNED)

    def keep_apart(self) -> None:
        """Run together only what is generated by the same parameters."""
        self._batches.alike = lambda serial: self._jobs[serial].alike

    async def idle(self) -> None:
        """Wait until nothing is held."""
        await self._idle.wait()

    def _retire(self, own_numbers: List[int]) -> None:
        if self.pool:
            self.pool.retire(own_numbers)
        if self.direct:
            self.direct.retire(own_numbers)

    def _drop(self, serial: int, failure: Failure) -> None:
        job = self._jobs.get(serial)
        if job is None:
            return  # it was late, and has gone when another one went
        if job.stage is Stage.LEAVING and not (job.awaited and job.session.alive()):
            self._borrowed.forget(job.session, job.frame)
        if job.stage is Stage.RUNNING:
            self._take_back(self.given.recall())
        if job.stage in (Stage.RUNNING, Stage.LEAVING) or job.leaving:
            return
        if job.stage is Stage.PREPARED or (self.pool and self.pool.withdraw(serial)):
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
        """Put the next complete batches on the GPU: one, and one that lies ready."""
        if self.slots is not None:
            self.slots.advance()
            self.settle()
            return
        has_given = False
        while self._batches.has_complete and self.given.takes_another():
            if numbers := self._in_time(self._batches.take() or []):
                self._run(numbers, [self._jobs[serial] for serial in numbers])
                has_given = True
        if not has_given:
            self.settle()

    def may_wait(self, running: Running) -> bool:
        """Whether nobody here needs to hear of a batch's end soon (GPU thread).

        Whoever gives more looks first what has ended, and so does who drains.
        """
        waits = self._batches.has_complete or self.listening.is_near
        return running.may_wait and self.accepting and not waits

    def _in_time(self, members: List[int]) -> List[int]:
        """Those whose deadline has not passed; the others are answered."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        late = [s for s in members if 0 < self._jobs[s].deadline_nanoseconds < now]
        for serial in late:
            self._answer(self._jobs.pop(serial), LATE)
        return [serial for serial in members if serial not in late] if late else members

    def _run(self, serials: List[int], jobs: List[Held]) -> None:
        """Put a batch, of one connection, on the GPU; a task for it would cost as much as it."""
        running = self.given.add(serials, jobs)
        for job in jobs:
            job.stage = Stage.RUNNING
        self.running += len(jobs)
        self._on_change()
        items = [job.prepared.value for job in jobs if job.prepared]
        # Last: the GPU thread has this one's turn as soon as it rests.
        self._predict(items, self.audience_of(jobs), running, partial(self.done, running))

    def done(self, running: Running, answers: Answers) -> None:
        """A batch has run; without answers it was taken back before it could begin."""
        if answers is not None:
            self.given.remove(running)
            self.running -= len(running.jobs)
            self._end(running, answers)
            self.listening.judge(running)
        elif self.given.remove(running):
            self._take_back([running])
        self._advance()

    # For the GPU thread while it listens.

    def may_run(self, count: int) -> bool:
        """Whether so many may run together as the card is."""
        return self._batches.limit is None or count <= self._batches.limit

    def audience_of(self, jobs: Sequence[Held]) -> Audience:
        """Who waits for the answers of a batch."""
        return Callers(self.given.pass_on, self._hand_on, jobs)

    def adopt(self, running: Running) -> None:
        """Hold a batch that the loop has not given."""
        running.serials = [next(self._serials) for _ in running.jobs]
        self._jobs.update(zip(running.serials, running.jobs))
        self._idle.clear()
        self.given.adopt(running)
        self.running += len(running.jobs)
        self._on_change()

    def _end(self, running: Running, answers: List[Answer]) -> None:
        """A batch has run."""
        if running.has_left:
            self.answered += len(running.serials)
            for serial in running.serials:
                del self._jobs[serial]
            return
        with running.session.together():
            for serial, job, given in zip(running.serials, running.jobs, answers):
                self._give(serial, job, given, running.seconds)

    def _take_back(self, recalled: List[Running]) -> None:
        """Batches, the last first, that have not run: they are the next ones."""
        for running in recalled:
            self.running -= len(running.jobs)
            for job in running.jobs:
                job.stage = Stage.PREPARED
            self._batches.put_back(running.serials)

    def _give(self, serial: int, job: Held, given: Answer, seconds: float) -> None:
        """Answer a request that has run, through a buffer where no frame holds the answer."""
        answer = self._in_its_form(job, given)
        if not isinstance(answer, Large) or len(answer.data) <= INLINE_LIMIT_BYTES:
            del self._jobs[serial]
            self._answer(job, answer, seconds)
            return
        job.stage = Stage.LEAVING
        handing_in = self._hand_in(serial, job, answer, seconds)
        leaving = asyncio.get_running_loop().create_task(handing_in)
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        leaving.add_done_callback(raise_error_of)

    def _in_its_form(self, job: Held, answer: Answer) -> Answer:
        """An answer as its request's form carries it; in pieces to who streams a large one."""
        if job.frame.meta.get("form") != "chat":
            return answer
        if isinstance(answer, Large) and answer.part == WHOLE and not job.told:
            self._hand_on(job, text_of(answer.answer))
        return for_chat(answer, told=job.told)

    async def _hand_in(self, serial: int, job: Held, answer: Large, seconds: float) -> None:
        """Answer with what no frame holds, once it lies in a buffer of the gateway's."""
        failure = await self._borrowed.put(job.session, job.frame, answer.data)
        del self._jobs[serial]
        if job.session.alive():
            self._answer(job, failure or (answer if job.awaited else CANCELLED), seconds)
        elif job.outlives_its_gateway:
            _log.info("a large result was lost with its gateway: the next one has it made again")
        self.settle()

    def _hand_on(self, job: Held, text: str) -> None:
        """Send a piece of an answer to who streams."""
        terms = job.terms
        if not terms or not terms["stream"] or not job.awaited or not job.session.alive():
            return
        for piece in pieces_of(text):
            self._tell(job.session, job.frame, {"text": piece, "terms": terms})
        job.told = True

    # For an engine with slots.

    def next_guest(self) -> Optional[int]:
        """The next request that is prepared and may run."""
        while (members := self._batches.take(1)) is not None:
            for serial in self._in_time(members):
                self._jobs[serial].stage = Stage.RUNNING
                self.running += 1
                return serial
        return None

    def item(self, serial: int) -> Any:
        """What preprocess() made of it."""
        prepared = self._jobs[serial].prepared
        return prepared.value if prepared else None

    def joins(self, serial: int, joining: bool) -> None:
        """Tell the gateway whom to blame if this ends the worker."""
        job = self._jobs[serial]
        self.on_joining(job.session, job.frame, joining)

    def is_awaited(self, serial: int) -> bool:
        """Whether its caller is still there."""
        job = self._jobs.get(serial)
        return job is not None and job.awaited

    def hear(self, serial: int, text: str) -> None:
        """A piece of its answer, unless it has ended meanwhile."""
        if job := self._jobs.get(serial):
            self._hand_on(job, text)

    def was_told(self, serial: int) -> bool:
        """Whether a piece of its answer has gone to its caller."""
        return self._jobs[serial].told

    def answer(self, serial: int, answer: Answer, seconds: float) -> None:
        """It has left its slot."""
        self.running -= 1
        self._give(serial, self._jobs[serial], answer, seconds)
        self.settle()

    # What both kinds share.

    def more_waits(self) -> bool:
        """Whether the GPU has work right after the batch that runs."""
        return len(self.given) > 1 or self._batches.waiting()

    def _answer(self, job: Held, answer: Answer, predict_seconds: float = 0.0) -> None:
        if isinstance(answer, Failure):
            given_back = answer in (RETURNED, CANCELLED)
            self.failed += not given_back
            if given_back and not job.session.alive():
                return  # whoever asked has given it to another by now
            self._reply(job.session, job.frame, answer.as_meta(), b"")
            return
        self.answered += 1
        self._reply(job.session, job.frame, *result_of(job, answer, predict_seconds))

    def settle(self) -> None:
        """What is held has changed: nothing may be, or the GPU thread may listen."""
        if not self._jobs and not self.listening.begins():
            self._idle.set()
        self._on_change()
