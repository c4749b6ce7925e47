# SPDX-License-Identifier: Apache-2.0
"""What went wrong, told twice: to the caller with its text, to the log without."""

import asyncio
import importlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Optional

from gpuwarden.worker.engine import RequestError
from gpuwarden.worker.texts import (
    KIND_LIMIT_CHARACTERS,
    PARAM_LIMIT_CHARACTERS,
    TEXT_LIMIT_CHARACTERS,
    sendable,
)

MESSAGE_LIMIT_CHARACTERS = 500  # an error's text is for a human: a screen's worth
LOCATION_FRAMES = 3
_RUNTIME = Path(__file__).parent
_REGISTRY = _RUNTIME / "engines" / "registry.py"


@dataclass(frozen=True)
class Failure:
    """A request's end without an answer.

    ``message`` may quote the request and is only for its caller; ``location`` is for the log.
    """

    kind: str
    message: str
    location: str = ""
    param: Optional[str] = None

    def as_meta(self) -> Dict[str, Any]:
        """The RESULT's meta."""
        error = {
            "type": sendable(self.kind, KIND_LIMIT_CHARACTERS),
            "message": sendable(self.message, TEXT_LIMIT_CHARACTERS),
        }
        if self.param is not None:
            error["param"] = sendable(self.param, PARAM_LIMIT_CHARACTERS)
        return {"ok": False, "error": error}


def raise_error_of(task: "asyncio.Task[Any]") -> None:
    """A done-callback: what a task died of reaches the loop's exception handler at once."""
    if not task.cancelled():
        task.result()


class WorkerError(Exception):
    """The worker cannot go on: the text says what, where and what to do; ``code`` its exit."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, cut to a readable length."""
    lines = str(error).strip().splitlines()
    return lines[0][:MESSAGE_LIMIT_CHARACTERS] if lines else ""


def location(error: BaseException) -> str:
    """Exception type and the innermost code locations: no text, no values."""
    frames = traceback.extract_tb(error.__traceback__)[-LOCATION_FRAMES:]
    places = [
        f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in reversed(frames)
    ]
    return (
        " < ".join([f"{type(error).__name__} at {places[0]}", *places[1:]])
        if places
        else (type(error).__name__)
    )


def failure_of(error: BaseException) -> Failure:
    """The failure of one request, from what its engine raised for it alone."""
    where = location(error)
    if isinstance(error, RequestError):
        text = str(error)[:MESSAGE_LIMIT_CHARACTERS]
        return Failure(error.kind, text, where, getattr(error, "param", None))
    text = first_line(error)
    return Failure(
        "engine_error", f"the engine failed: {where}" + (f": {text}" if text else ""), where
    )


def engine_traceback(error: BaseException) -> List[str]:
    """The traceback's lines from the engine's own code on, without the runtime's frames."""
    inner = _skip_runtime(error.__traceback__)
    text = "".join(traceback.format_exception(type(error), error, inner))
    return text.rstrip().splitlines()


def _skip_runtime(trace: Optional[TracebackType]) -> Optional[TracebackType]:
    while trace is not None and trace.tb_next is not None:
        if not _is_runtime(trace.tb_frame.f_code.co_filename):
            break
        trace = trace.tb_next
    return trace


def _is_runtime(file: str) -> bool:
    importing = file.startswith("<frozen importlib") or file == importlib.__file__
    return importing or Path(file).parent == _RUNTIME or Path(file) == _REGISTRY
