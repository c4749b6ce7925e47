# SPDX-License-Identifier: Apache-2.0
"""From settings to an engine that can answer, or to a text that says why not."""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Callable, Dict, Optional

from gpuwarden.worker.brokencard import breaks_card
from gpuwarden.worker.engine import Engine, OptionsError, ParallelEngine, Surroundings
from gpuwarden.worker.engines.registry import EngineNotFoundError, make_engine
from gpuwarden.worker.faults import WorkerError, engine_traceback, first_line, location
from gpuwarden.worker.gpu import GpuThread
from gpuwarden.worker.notify import Notifier
from gpuwarden.worker.oncard import is_listed
from gpuwarden.worker.pool import Pool, PreparationError
from gpuwarden.worker.settings import Settings
from gpuwarden.worker.simulated import SimulatedCardError, SimulatedContext, is_there
from gpuwarden.worker.waiting import within

_log = logging.getLogger(__name__)

EXTENSION_SECONDS = 30.0  # each asks for that much; three are sent in its time
EXIT_SETTINGS = os.EX_USAGE  # 64: the launcher gave settings that can't be used
EXIT_NO_GPU = os.EX_UNAVAILABLE  # 69: no context on the card
EXIT_ENGINE_FAILED = os.EX_SOFTWARE  # 70: load(), warm_up() or prepare() raised or hung
EXIT_NO_ENGINE = os.EX_CONFIG  # 78: no such engine, or options that it can't use


def ending_of(error: BaseException) -> WorkerError:
    """What a worker ends of that can't go on with what was raised in it."""
    broken = breaks_card(error)
    text = f"internal error: {location(error)}; please report it"
    if broken:
        text = f"the context on the card is gone: {location(error)}; the worker is started anew"
    ending = WorkerError(text, EXIT_NO_GPU if broken else EXIT_ENGINE_FAILED)
    ending.__cause__ = error
    return ending


class Loader:
    """Starts the CPU processes and loads the model, both at once."""

    def __init__(
        self, settings: Settings, gpu: GpuThread, pool: Pool, on_context_lost: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._gpu = gpu
        self._pool = pool
        self._on_context_lost = on_context_lost
        self.context: Optional[SimulatedContext] = None
        self._opened: Optional[ParallelEngine] = None
        self.load_fraction = 0.0  # of the simulated card, while a batch runs
        self.on_failed: Callable[[WorkerError], None] = lambda error: None
        self.on_figures: Callable[[Dict[str, float]], None] = lambda figures: None

    async def load(self, notifier: Notifier) -> Engine:
        """The engine, loaded and warm. Raises WorkerError with what to do."""
        extending = asyncio.get_running_loop().create_task(self._extend(notifier))
        try:
            engine, _ = await within(
                self._settings.load_timeout_seconds,
                asyncio.gather(self._load_engine(notifier), self._start_pool()),
            )
        except asyncio.TimeoutError as error:
            limit = self._settings.load_timeout_seconds
            raise self._error(
                f"was not loaded within {limit:g} s (load_timeout_seconds)", EXIT_ENGINE_FAILED
            ) from error
        finally:
            extending.cancel()
        return engine

    async def close(self) -> None:
        """End what was opened, whether loading had come to its end or not."""
        if self._opened is not None:
            await self._opened.close()
        if self.context:
            await self.context.close()

    async def _extend(self, notifier: Notifier) -> None:
        """Ask systemd for more time as long as the loop turns."""
        started = time.monotonic()
        while True:
            notifier.extend_timeout(EXTENSION_SECONDS)
            await asyncio.sleep(EXTENSION_SECONDS / 3)
            _log.debug("loading for %.0f s", time.monotonic() - started)

    async def _load_engine(self, notifier: Notifier) -> Engine:
        settings, context = self._settings, self._settings.context()
        stage = "its constructor or module"
        try:
            engine = await self._gpu.run(
                make_engine, settings.engine, settings.engine_path, context
            )
            stage = "its simulated_* options"
            await self._attach(engine)
            stage = "load()"
            await self._gpu.run(engine.load, context)
            stage = "warm_up()"
            await self._gpu.run(engine.warm_up)
            stage = "open()"
            if isinstance(engine, ParallelEngine):
                self._opened = engine
                await engine.open(self._surroundings(notifier))
        except (EngineNotFoundError, OptionsError) as error:
            raise self._error(f"cannot be used: {error}", EXIT_NO_ENGINE) from error
        except SimulatedCardError as error:
            raise self._error(f"got no GPU: {error}", EXIT_NO_GPU) from error
        except (Exception, SystemExit) as error:  # an integrator's code may raise anything
            for line in engine_traceback(error):  # no request was seen yet: no patient's data
                _log.error("%s", line)
            raise self._error(
                f"raised {type(error).__name__} in {stage}: {first_line(error)}",
                EXIT_ENGINE_FAILED,
            ) from error
        return engine

    async def _attach(self, engine: Engine) -> None:
        settings = self._settings
        if is_there(settings.simulator_socket, settings.gpu_uuid):
            vram = settings.options.get("simulated_vram_bytes", engine.simulated_vram_bytes)
            self.load_fraction = float(
                settings.options.get("simulated_load", engine.simulated_load)
            )
            self.context = await SimulatedContext.create(
                settings.simulator_socket, settings.gpu_uuid, int(vram), self._on_context_lost
            )

    def _surroundings(self, notifier: Notifier) -> Surroundings:
        settings = self._settings
        scan_file = Path(settings.scan_folder, f"{settings.gpu_index}.json")
        return Surroundings(
            fail=lambda why: self.on_failed(self._error(f"can't go on: {why}", EXIT_ENGINE_FAILED)),
            is_on_card=lambda: is_listed(scan_file, settings.number),
            show=lambda text: notifier.status(f"loading {settings.engine}: {text}"),
            tell_figures=self.on_figures,
        )

    async def _start_pool(self) -> None:
        try:
            await self._pool.start()
        except PreparationError as error:
            raise self._error(f"in a CPU process: {error}", EXIT_ENGINE_FAILED) from error

    def _error(self, text: str, code: int) -> WorkerError:
        unit = f"medgemma-worker@{self._settings.number}"
        return WorkerError(
            f"engine {self._settings.engine} {text.rstrip('.')}. See journalctl -u {unit}; "
            f"after correcting it: systemctl restart {unit}",
            code,
        )
