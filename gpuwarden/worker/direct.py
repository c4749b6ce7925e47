# SPDX-License-Identifier: Apache-2.0
"""Requests of a model class without a ``preprocess`` of its own: no CPU process has a part in them.

Its ``predict`` reads each body where the gateway received it, mapped read-only into this process.
"""

import logging
import os
from typing import Any, List, Mapping, Set

from gpuwarden.worker.buffers import Extent, MappedBuffers
from gpuwarden.worker.engine import MAX_PIXELS, Engine, Request, RequestError
from gpuwarden.worker.faults import Failure, failure_of
from gpuwarden.worker.pixels import check_pixels
from gpuwarden.worker.pool import Outcome, Prepared, Task
from gpuwarden.worker.tasks import parameters_of

_log = logging.getLogger(__name__)


def is_direct(engine: Engine) -> bool:
    """Whether ``predict`` takes requests as they come."""
    return type(engine).preprocess is Engine.preprocess


class Direct:
    """Makes requests of tasks, with the mappings that they need.

    :param max_pixels: of an image, by its header.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        self._mapped = MappedBuffers()
        self._known: Set[int] = set()

    def takes(self, task: Task) -> bool:
        """Whether there is nothing to prepare: a chat is JSON, and to be read first."""
        return bool(task.meta["form"] == "predict")

    def prepare(self, task: Task) -> Outcome:
        """The request, its body not copied; valid until its RESULT is sent."""
        try:
            body = self._view(task.body) if isinstance(task.body, Extent) else memoryview(task.body)
            return Prepared(self.request_of(task.meta, body), 0.0)
        except RequestError as error:
            return failure_of(error)
        except OSError as error:  # no memory, or no descriptor, for one more mapping
            _log.error("a body can't be mapped: %s", error.strerror)
            return Failure("engine_error", "its body can't be mapped")

    def request_of(self, said: Mapping[str, Any], body: memoryview) -> Request:
        """What a JOB says, or a task's meta, as a request (any thread).

        :raises RequestError: it says that it has too many pixels.
        :raises TypeError, ValueError: it is malformed.
        """
        check_pixels(body, self._max_pixels, "image")
        media_type = str(said.get("media_type") or "")
        return Request(said.get("question"), media_type, parameters_of(said), body)

    def retire(self, numbers: List[int]) -> None:
        """Unmap buffers; one that a batch still reads goes with its last view."""
        for number in numbers:
            if number in self._known:
                self._known.remove(number)
                self._mapped.retire(number)

    def _view(self, extent: Extent) -> memoryview:
        lent = extent.buffer
        if lent.number not in self._known:
            self._mapped.add(lent.number, os.dup(lent.descriptor), lent.size)
            self._known.add(lent.number)
        return self._mapped.view(lent.number, extent.offset, extent.length)
