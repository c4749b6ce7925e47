# SPDX-License-Identifier: Apache-2.0
"""Any server with a port of its own as a worker: vLLM, another server of OpenAI's API, a page.

It runs as a child in the worker's own control group, so all limits of the worker are its limits and
its end is the worker's. Callers reach it through the front door alone.
"""

import asyncio
import json
import logging
import os
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any, Coroutine, Dict, List, Optional, Set

from gpuwarden.worker.engine import (
    BadRequestError,
    Context,
    OptionsError,
    ParallelEngine,
    Request,
    RequestError,
    Surroundings,
)
from gpuwarden.worker.engines.command.figures import figures_in
from gpuwarden.worker.engines.command.openai import (
    TEXT_LIMIT_BYTES,
    Completion,
    Events,
    body_of,
    error_of,
)
from gpuwarden.worker.engines.command.options import (
    Options,
    fields_of,
    filled,
    own_port,
    parse_options,
)
from gpuwarden.worker.engines.command.process import ServerProcess
from gpuwarden.worker.engines.command.readiness import (
    ANSWER_SECONDS,
    is_well,
    until_on_card,
    until_well,
)
from gpuwarden.worker.engines.command.upstream import (
    Answer,
    RefusedError,
    UpstreamError,
    asked,
)
from gpuwarden.worker.faults import raise_error_of
from gpuwarden.worker.waiting import within

_log = logging.getLogger(__name__)

ECO, NORMAL = "eco", "normal"  # article 2's own words for a service's modes
LOOK_SECONDS = 5.0  # between two looks at health and figures; the articles' monitor interval
ILL_SECONDS = 30.0  # of looks that all fail; as long as systemd's watchdog waits for a worker
DEATH_SECONDS = 1.0  # from a connection that breaks to the news that its server has died
ERROR_LIMIT_BYTES = 64 * 1024
FIGURES_LIMIT_BYTES = 4 << 20  # vLLM's histograms have about 100 KiB


class GivenBackError(RequestError):
    """This worker ends: another one is to answer."""

    kind = "returned"


class Command(ParallelEngine):
    """Starts the server, asks it in OpenAI's form, looks after it."""

    @cached_property
    def options(self) -> Options:
        """What the configuration says of the server. Raises OptionsError."""
        return parse_options(self.context.options)

    def load(self, context: Context) -> None:
        """Read the options. Raises OptionsError with every problem found."""
        values = {
            "port": own_port(self.options, context.number),
            "model": context.model,
            "number": context.number,
            "gpu_index": "" if context.gpu_index is None else context.gpu_index,
            "max_batch": context.max_batch,
        }
        self._port = own_port(self.options, context.number)
        self._command = filled(self.options.command, values)
        if not os.access(self._command[0], os.X_OK):
            raise OptionsError(f"command names {self._command[0]}, no program that can be started")
        self._environment = filled(self.options.environment, values)
        self._headers = [*self.options.headers, *key_header(self.options.api_key_file)]
        self._server: Optional[ServerProcess] = None
        self._tasks: Set[asyncio.Task[None]] = set()
        self._mode = self._told_mode = NORMAL
        self._telling: Optional[asyncio.Task[None]] = None
        self._has_figures = bool(self.options.metrics_path)

    def preprocess(self, request: Request) -> Any:
        """The body for the server, its images in base64. Raises BadImageError, BadRequestError."""
        if self.options.api == "none":
            raise BadRequestError("this model has a page of its own and takes no requests here")
        model = self.options.served_model or self.context.model
        return pickle.PickleBuffer(body_of(request, model, fields_of(self.options)))

    async def open(self, surroundings: Surroundings) -> None:
        """Start the server and wait until it can serve. Raises OSError, RuntimeError."""
        self._surroundings = surroundings
        environment = dict(word.split("=", 1) for word in self._environment)
        server = self._server = await ServerProcess.start(self._command, environment)
        try:
            await self._until_ready(server)
        except BaseException:
            await server.end()
            raise
        server.quiet = self.options.log != "all"
        self._start(self._watch(server))
        self._start(self._look_after())

    async def answer(self, place: int, item: Any) -> Dict[str, Any]:
        """Ask the server, hand on what it says. Raises RequestError."""
        path = f"{self.options.api_path}/chat/completions"
        try:
            async with asked(self._port, "POST", path, self._headers, memoryview(item)) as answer:
                return await self._completion(place, answer)
        except RefusedError as error:
            self._surroundings.fail(await self._why_gone(error))
            raise GivenBackError(str(error)) from error
        except UpstreamError as error:
            await asyncio.sleep(DEATH_SECONDS)  # if it has died, this worker ends meanwhile
            raise RequestError(f"the model's server failed: {error}") from error

    async def _why_gone(self, error: RefusedError) -> str:
        """Its port is closed a moment before its end is known, which says more."""
        assert self._server is not None  # nobody asks before it is there
        try:
            await within(DEATH_SECONDS, self._server.ended())
        except asyncio.TimeoutError:
            return f"its server is gone: {error}"
        return self._server.end_text

    def limited(self, limit: Optional[int]) -> None:
        """Tell the server of a hot card, if it has an ear for it."""
        self._mode = ECO if limit is not None and limit < self.context.max_batch else NORMAL
        if self.options.thermal_path and (self._telling is None or self._telling.done()):
            self._telling = self._start(self._tell_mode())

    def canary(self) -> Optional[bool]:
        """False where its server has left the card; that it is there proves no more than that."""
        waits = self.options.wait_for_gpu and self.context.gpu_index is not None
        return False if waits and self._surroundings.is_on_card() is False else None

    async def close(self) -> None:
        """End the server."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.end()

    async def _until_ready(self, server: ServerProcess) -> None:
        waiting = asyncio.ensure_future(self._until_serving())
        ending = asyncio.ensure_future(server.ended())
        try:
            await asyncio.wait([waiting, ending], return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                raise RuntimeError(f"{server.end_text}; see the lines before in the journal")
            await waiting
        finally:
            waiting.cancel()
            ending.cancel()
            await asyncio.gather(waiting, ending, return_exceptions=True)

    async def _until_serving(self) -> None:
        show, context = self._surroundings.show, self.context
        await until_well(self._port, self.options.ready_path, show)
        if self.options.wait_for_gpu and context.gpu_index is not None:
            await until_on_card(self._surroundings.is_on_card, show)

    async def _completion(self, place: int, answer: Answer) -> Dict[str, Any]:
        if answer.status != 200:
            raise error_of(answer.status, _object_in(await answer.whole(ERROR_LIMIT_BYTES)))
        completion = Completion()
        if answer.media_type != "text/event-stream":
            completion.take_whole(await answer.whole(TEXT_LIMIT_BYTES))
            return completion.result()
        events = Events()
        async for chunk in answer.chunks():
            pieces: List[str] = []
            try:
                for event in events.feed(chunk):
                    pieces.append(completion.take(event))
            finally:  # what comes before an error is the caller's
                self.tell(place, "".join(pieces))
            if completion.has_ended:
                break
        return completion.result()

    async def _watch(self, server: ServerProcess) -> None:
        await server.ended()
        self._surroundings.fail(server.end_text)

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        well_at = loop.time()
        while True:
            if await is_well(self._port, self.options.ready_path):
                well_at = loop.time()
            elif loop.time() - well_at > ILL_SECONDS:
                page = f"port {self._port}{self.options.ready_path}"
                self._surroundings.fail(f"its server gave no answer at {page} in {ILL_SECONDS:g} s")
            if self._has_figures:
                await self._read_figures()
            await asyncio.sleep(LOOK_SECONDS)

    async def _read_figures(self) -> None:
        try:
            text = await within(LOOK_SECONDS, self._metrics())
        except (UpstreamError, asyncio.TimeoutError):
            return  # its health is looked at by itself
        if text is None:
            self._has_figures = False
            _log.info("its server has no figures at %s", self.options.metrics_path)
            return
        self._surroundings.tell_figures(figures_in(text))

    async def _metrics(self) -> Optional[str]:
        async with asked(self._port, "GET", self.options.metrics_path) as answer:
            if answer.status != 200:
                return None
            return (await answer.whole(FIGURES_LIMIT_BYTES)).decode("utf-8", "replace")

    async def _tell_mode(self) -> None:
        """One after the other: the last that it hears is what holds."""
        while (mode := self._mode) != self._told_mode:
            await self._post_mode(mode)
            self._told_mode = mode

    async def _post_mode(self, mode: str) -> None:
        path = self.options.thermal_path.replace("{mode}", mode)
        try:
            status = await within(ANSWER_SECONDS, self._posted(path))
            problem = "" if status < 400 else f"it answered {status}"
        except UpstreamError as error:
            problem = str(error)
        except asyncio.TimeoutError:
            problem = f"no answer within {ANSWER_SECONDS:g} s"
        if problem:
            _log.warning("its server was not told of %s mode at %s: %s", mode, path, problem)

    async def _posted(self, path: str) -> int:
        async with asked(self._port, "POST", path, self._headers) as answer:
            return answer.status

    def _start(self, work: "Coroutine[Any, Any, None]") -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(raise_error_of)
        return task


def key_header(file: str) -> List[str]:
    """The header with the key in a file, if there is one.

    Raises OptionsError, with nothing of the key.
    """
    if not file:
        return []
    try:
        key = Path(file).read_bytes().decode("ascii", "replace").strip()
    except OSError as error:
        raise OptionsError(f"api_key_file {file}: {error.strerror}") from error
    if not key or any(not "!" <= letter <= "~" for letter in key):
        text = f"api_key_file {file} is one line with a key: ASCII letters, digits and signs"
        raise OptionsError(text)
    return [f"Authorization: Bearer {key}"]


def _object_in(body: bytes) -> Optional[Dict[str, Any]]:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
