# SPDX-License-Identifier: Apache-2.0
"""A worker: hosts one model class between the gateway and the card.

One loop on the main thread for channel, watchdog and CPU processes; one thread for the card.
What it can't survive it doesn't try to: it exits, systemd starts it again, and the gateway gives
its requests to others.
"""

import argparse
import asyncio
import faulthandler
import logging
import os
import signal
import sys
import time
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

from gpuwarden.worker import logs
from gpuwarden.worker.allocator import read_memory
from gpuwarden.worker.brokencard import breaks_card
from gpuwarden.worker.direct import Direct, is_direct
from gpuwarden.worker.engine import Audience, Engine, ParallelEngine, SlotEngine
from gpuwarden.worker.faults import WorkerError
from gpuwarden.worker.frames import Frame
from gpuwarden.worker.gpu import GpuThread, Raised, run_batch
from gpuwarden.worker.link import GatewayLink, Session
from gpuwarden.worker.listening import Listening
from gpuwarden.worker.loading import EXIT_SETTINGS, Loader, ending_of
from gpuwarden.worker.memoryreport import MemoryReports
from gpuwarden.worker.notify import Notifier, watchdog_seconds
from gpuwarden.worker.outputs import Answer
from gpuwarden.worker.parallel import Parallel
from gpuwarden.worker.pauses import settle_memory, take_short_turns
from gpuwarden.worker.pool import Pool
from gpuwarden.worker.priority import NORMAL, raise_this_thread
from gpuwarden.worker.probing import Probing
from gpuwarden.worker.pulse import Pulse
from gpuwarden.worker.running import Running
from gpuwarden.worker.settings import Settings, SettingsError, read_settings
from gpuwarden.worker.slots import Slots, manner_of
from gpuwarden.worker.work import Work

_log = logging.getLogger(__name__)

STATUS_PERIOD_SECONDS = 1.0  # nobody reads faster
GOODBYE_SECONDS = 2.0  # for the gateway to take the last records
GPU_END_SECONDS = 2.0  # for a thread with nothing to do


def main(argv: List[str]) -> int:
    """Run a worker until SIGTERM; its exit status (see ``loading`` for the failures)."""
    parser = argparse.ArgumentParser(prog="worker-host", description="Runs one model worker.")
    parser.add_argument("--settings-fd", type=int, required=True, metavar="N")
    arguments = parser.parse_args(argv)
    notifier = Notifier()
    logs.configure("info")
    try:
        settings = read_settings(arguments.settings_fd)
    except SettingsError as error:
        _log.error("settings: %s", error)
        notifier.status(f"failed: settings: {error}")
        return EXIT_SETTINGS
    os.close(arguments.settings_fd)
    logs.configure(settings.log_level)
    faulthandler.enable()  # code locations only
    take_short_turns()
    host = Host(settings, notifier)
    code = asyncio.run(host.run())
    # A thread that hangs in the driver, or a lost context, would hang the interpreter's end.
    if host.is_card_broken or not host.gpu_ended:
        logging.shutdown()
        os._exit(code)
    return code


class Host:
    """The worker's parts and its life: load, serve, drain."""

    gpu: GpuThread
    work: Work
    listening: Listening
    link: GatewayLink
    pool: Pool
    loader: Loader
    memory: MemoryReports
    probing: Probing

    def __init__(self, settings: Settings, notifier: Notifier) -> None:
        self.settings = settings
        self.notifier = notifier
        self.engine: Optional[Engine] = None
        self.state = "loading"
        self.gpu_ended = True
        self.is_card_broken = False
        self._errors: Dict[str, str] = {}
        self._status_due: Optional[asyncio.TimerHandle] = None
        self._drained_session: Optional[Session] = None
        self._memory_seconds = 0.0  # when that of an engine with slots was read
        self._tasks: List[asyncio.Task[Any]] = []

    async def run(self) -> int:
        """Load and serve until told to stop; the exit status."""
        self._build()
        try:
            return await self._live()
        except WorkerError as error:
            _log.error("%s", error)
            self.notifier.status(f"failed: {error}")
            self.is_card_broken = breaks_card(error)
            return error.code
        finally:
            await self._end()

    def _build(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._on_unexpected)
        loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        loop.add_signal_handler(signal.SIGINT, self._on_terminate)
        self.gpu = GpuThread()
        self.work = Work(self._predict, self._reply, self._hand_on, self._on_change)
        self.work.given.catch_up = self.gpu.catch_up
        self.work.given.pass_on = self.gpu.pass_on
        self.work.listening = self.listening = Listening(self.gpu, self.work)
        self.pool = Pool(self.settings, self.work.on_prepared)
        self.work.pool = self.pool
        self.work.on_drain_asked = self._on_drain_asked
        self.work.on_session_lost = self._on_session_lost
        self.link = GatewayLink(self.settings, self.work)
        self.work.on_joining = self.link.joining
        self.memory = MemoryReports(self.gpu, self.settings.options, self.link.set_figures)
        self.link.on_relieve = self.memory.relieve
        self.loader = Loader(self.settings, self.gpu, self.pool, self._on_context_lost)
        self.loader.on_failed = self._stop_with
        self.loader.on_figures = self.link.set_server
        self.probing = Probing(self.gpu, self.loader, self.link.probed, self._start)
        self.work.on_probe_asked = self.probing.on_asked

    async def _live(self) -> int:
        self._show_status()
        self._start(self.link.run())
        self._start(self.link.beat())
        loading = self._start(self.loader.load(self.notifier))
        await asyncio.wait([loading, self._stop], return_when=asyncio.FIRST_COMPLETED)
        if self._stop.done():
            self.notifier.stopping()
            self._stop.result()
            return 0  # nothing was accepted yet
        self.engine = self.probing.engine = loading.result()
        await self._become_ready(self.engine)
        await self._stop
        await self._drain()
        return 0

    async def _become_ready(self, engine: Engine) -> None:
        logs.withhold_foreign_text()
        settle_memory()
        # Not before: ten minutes of loading at a real-time priority would help nobody.
        wanted = NORMAL if isinstance(engine, ParallelEngine) else self.settings.inference_priority
        self._tell_priority(await self.gpu.run(raise_this_thread, wanted))
        self.link.set_manner(manner_of(engine))
        if isinstance(engine, SlotEngine):
            count = self.settings.max_batch
            self.work.slots = Slots(engine, count, self.work, self._on_gpu, self._on_busy)
            self.work.slots.on_shortage = self.memory.count_shortage
        if isinstance(engine, ParallelEngine):
            self.work.slots = Parallel(engine, self.settings, self.work, self._on_busy)
        if not engine.batch_mixed:
            self.work.keep_apart()
        # It may have come while the engine was loaded.
        self.work.on_limit(self.link.batch_limit, self.link.thermal_state)
        self.work.direct = Direct(self.settings.max_pixels) if is_direct(engine) else None
        if not self.loader.context:
            self.listening.allow(partial(self._run_batch, engine), self._tell_memory)
        self.work.accepting = True
        self._tell_memory(await self.gpu.run(read_memory, engine))
        self._set_state("ready")
        self.notifier.ready()
        _log.info("worker %d is ready with %s", self.settings.number, self.settings.engine)
        pulse = Pulse(
            self.notifier,
            watchdog_seconds(),
            self.settings.execution_timeout_seconds,
            lambda: self.gpu.busy_since,
            self._on_stuck,
        )
        self._start(pulse.run())
        if self.loader.context:
            self.memory.simulated_bytes = self.loader.context.vram_bytes
        self._start(self.memory.run(engine))

    async def _drain(self) -> None:
        """Finish what runs, give back the rest, say goodbye."""
        seconds = self.settings.drain_seconds
        self.notifier.stopping()
        self.notifier.extend_timeout(seconds + GOODBYE_SECONDS + GPU_END_SECONDS)
        self._set_state("draining")
        self.work.drain()
        try:
            await asyncio.wait_for(self.work.idle(), seconds)
        except asyncio.TimeoutError:
            _log.warning("a batch still runs after %g s of draining: it is given up", seconds)
        else:
            self.link.say_goodbye()
        await self.link.close(GOODBYE_SECONDS)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close(0)
        await self.pool.close()
        if isinstance(self.work.slots, Parallel):
            await self.work.slots.close()
        await self.loader.close()
        self.listening.end()
        self.gpu_ended = self.gpu.end(GPU_END_SECONDS)
        self.listening.close()
        if self._status_due:
            self._status_due.cancel()

    def _reply(self, session: Session, job: Frame, meta: Dict[str, Any], body: bytes) -> None:
        self.link.answer(session, job, meta, body)

    def _hand_on(self, session: Session, job: Frame, meta: Dict[str, Any]) -> None:
        self.link.tell(session, job, meta)

    def _predict(
        self,
        items: List[Any],
        audience: Audience,
        running: Running,
        done: Callable[[Optional[List[Answer]]], None],
    ) -> None:
        engine, context = self.engine, self.loader.context
        assert engine is not None
        if context:
            context.set_load(self.loader.load_fraction)

        def settle(result: Any, error: Raised) -> None:
            if context and not self.work.more_waits():
                context.set_load(0.0)
            if error is not None:
                raise error
            answers, memory = result
            if answers is not None:
                self._tell_memory(memory)
            done(answers)

        def may_wait() -> bool:
            return context is None and self.work.may_wait(running)

        batch = (engine, items, audience, running)
        self.gpu.submit(settle, self._run_batch, *batch, may_wait=may_wait, here=engine.quick)

    def _run_batch(
        self, engine: Engine, items: List[Any], audience: Audience, running: Running
    ) -> Tuple[Optional[List[Answer]], Optional[Tuple[int, int]]]:
        """On the GPU thread, or a quick engine's in the loop."""
        if not running.begin():
            return None, None
        answers = run_batch(
            engine, items, self.gpu.mark, audience, on_shortage=self.memory.count_shortage
        )
        running.leave(answers)
        return answers, read_memory(engine)

    async def _on_gpu(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives on the GPU thread, where it counts as work."""
        looks = time.monotonic() - self._memory_seconds > STATUS_PERIOD_SECONDS

        def call() -> Tuple[Any, Optional[Tuple[int, int]]]:
            self.gpu.mark()
            result = function(*arguments)
            return result, read_memory(self.engine) if looks and self.engine else None

        result, memory = await self.gpu.run(call)
        if looks:
            self._memory_seconds = time.monotonic()
            self._tell_memory(memory)
        return result

    def _on_busy(self, busy: bool) -> None:
        """An engine with slots works from now on, or rests."""
        if self.loader.context:
            self.loader.context.set_load(self.loader.load_fraction if busy else 0.0)

    def _tell_memory(self, memory: Optional[Tuple[int, int]]) -> None:
        if memory is None and self.loader.context:
            memory = (self.loader.context.vram_bytes, self.loader.context.vram_bytes)
        if memory is not None:
            self.link.set_memory(*memory)

    def _tell_priority(self, trouble: str) -> None:
        if trouble:
            _log.warning("%s", trouble)
            self._set_error("priority", trouble)

    def _start(self, coroutine: Any) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(self._on_task_done)
        self._tasks.append(task)
        return task

    def _on_task_done(self, task: "asyncio.Task[Any]") -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, WorkerError):
            self._stop_with(error)
        elif error is not None:
            self._give_up(error)

    def _on_unexpected(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        self._give_up(context.get("exception") or RuntimeError("unexpected"))

    def _give_up(self, error: BaseException) -> None:
        """The card's context is gone, or this runtime's books may be wrong: it must not go on."""
        self._stop_with(ending_of(error))

    def _stop_with(self, error: WorkerError) -> None:
        if not self._stop.done():
            self._stop.set_exception(error)

    def _on_terminate(self) -> None:
        if not self._stop.done():
            self._stop.set_result(None)

    def _on_drain_asked(self, session: Session) -> None:
        if self.state == "ready":
            self._drained_session = session
            self._start(self._drain_session(session))

    async def _drain_session(self, session: Session) -> None:
        """Finish for one connection to the gateway; the next one gets a ready worker."""
        self._set_state("draining")
        self.work.drain()
        await self.work.idle()
        if self._drained_session is session and session.alive():
            self.link.say_goodbye()

    def _on_session_lost(self, session: Session) -> None:
        if self._drained_session is session:
            self._drained_session = None
            if not self._stop.done():
                self.work.accepting = True
                self._set_state("ready")

    def _on_context_lost(self) -> None:
        _log.error("the simulator ended the GPU context")
        self._set_error("context", "GPU context lost: the simulator ended it; restart this worker")

    def _on_stuck(self, stuck: bool) -> None:
        limit = self.settings.execution_timeout_seconds
        if stuck:
            _log.error("a batch runs for over %g s (execution_timeout_seconds); threads:", limit)
            faulthandler.dump_traceback(sys.stderr)  # code locations only
        text = f"stuck: a batch runs for over {limit:g} s" if stuck else ""
        self._set_error("stuck", text)

    def _set_error(self, source: str, text: str) -> None:
        self._errors[source] = text
        self._set_state(self.state)

    def _set_state(self, state: str) -> None:
        self.state = state
        self.link.set_state(state, self._error_text())
        self._show_status()

    def _error_text(self) -> str:
        return "; ".join(text for text in self._errors.values() if text)

    def _on_change(self) -> None:
        if self._status_due is None:
            loop = asyncio.get_running_loop()
            self._status_due = loop.call_later(STATUS_PERIOD_SECONDS, self._show_status)

    def _show_status(self) -> None:
        if self._status_due:
            self._status_due.cancel()
            self._status_due = None
        self.gpu.catch_up()
        if self.work.running:
            self._on_change()  # its end may be told to nobody else
        self.notifier.status(self.status_text())

    def status_text(self) -> str:
        """The line for ``systemctl status``."""
        settings, work = self.settings, self.work
        if self.state == "loading":
            place = (
                "without a GPU" if settings.gpu_index is None else f"on GPU {settings.gpu_index}"
            )
            return f"loading {settings.engine} {place}"
        failed = f", {work.failed} failed" if work.failed else ""
        trouble = f"; {self._error_text()}" if self._error_text() else ""
        return f"{self.state}: {work.answered} answered{failed}, {work.running} running{trouble}"
