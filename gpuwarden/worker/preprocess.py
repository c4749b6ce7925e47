# SPDX-License-Identifier: Apache-2.0
"""A CPU process of the worker: takes one request at a time, prepares it, hands it back.

Started by exec (see ``pool``). It ends when its socket does, so it can't outlive the worker.
"""

import faulthandler
import json
import logging
import os
import signal
import socket
import time
from typing import Any, Dict, List, Optional, Tuple

from gpuwarden.worker import logs
from gpuwarden.worker.buffers import MappedBuffers
from gpuwarden.worker.channel import Inbox, close_all, send_record
from gpuwarden.worker.chat import read_chat
from gpuwarden.worker.engine import Context, Engine, Image, Request
from gpuwarden.worker.engines.registry import EngineNotFoundError, make_engine
from gpuwarden.worker.faults import Failure, engine_traceback, failure_of, first_line
from gpuwarden.worker.frames import Frame, FrameType, decode, encode
from gpuwarden.worker.handover import HandoverError, pack
from gpuwarden.worker.memory import limit_memory, too_much_memory
from gpuwarden.worker.pauses import settle_memory
from gpuwarden.worker.pixels import check_pixels
from gpuwarden.worker.priority import forgo_priorities

_log = logging.getLogger(__name__)


def main(descriptor: int) -> int:
    """Serve the worker at the other end of a socket until it closes; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the worker's to handle
    faulthandler.enable()  # code locations only
    forgo_priorities()  # they are the GPU thread's alone
    with socket.socket(fileno=descriptor) as connection:
        try:
            return _serve(connection)
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the worker has gone


def _serve(connection: socket.socket) -> int:
    inbox = Inbox()
    first = inbox.receive(connection, decode)
    if first is None:
        return 0
    frame, _ = first
    logs.configure(frame.meta["log_level"])
    engine = _prepared_engine(connection, frame.meta)
    if engine is None:
        return 1
    limit_memory(frame.meta["memory_bytes"])
    logs.withhold_foreign_text()
    settle_memory()
    _send(connection, Frame(FrameType.HELLO, meta={"ok": True}))
    mapped = MappedBuffers()
    while True:
        received = inbox.receive(connection, decode)
        if received is None:
            return 0
        frame, descriptors = received
        if frame.type == FrameType.RETIRE:
            close_all(descriptors)
            _retire(mapped, frame.meta["buffer"])
        elif frame.type == FrameType.JOB:
            _answer(connection, engine, mapped, frame, descriptors)
        else:
            close_all(descriptors)


def _prepared_engine(connection: socket.socket, meta: Dict[str, Any]) -> Optional[Engine]:
    """The engine, ready for requests; None after the worker was told why not."""
    try:
        engine = make_engine(meta["engine"], meta["engine_path"], Context(**meta["context"]))
        engine.prepare()
    except EngineNotFoundError as error:
        _send(connection, Frame(FrameType.HELLO, meta={"ok": False, "error": str(error)}))
        return None
    except Exception as error:  # noqa: BLE001 - an integrator's code: all it raises is told
        for line in engine_traceback(error):  # no request was seen yet: no patient's data in it
            _log.error("%s", line)
        text = f"raised {type(error).__name__} in prepare(): {first_line(error)}"
        _send(connection, Frame(FrameType.HELLO, meta={"ok": False, "error": text}))
        return None
    return engine


def _retire(mapped: MappedBuffers, number: int) -> None:
    if not mapped.retire(number):
        _log.warning(
            "the engine keeps a reference into a request's body after preprocess() returned: "
            "copy what is needed later"
        )


def _answer(
    connection: socket.socket,
    engine: Engine,
    mapped: MappedBuffers,
    frame: Frame,
    descriptors: List[int],
) -> None:
    started = time.monotonic()
    try:
        request, terms = _read(engine.context, mapped, frame, descriptors)
        alike = alike_by(request.parameters)
        meta, inline, result = pack(engine.preprocess(request))
    except HandoverError as error:
        _fail(connection, frame, Failure("engine_error", str(error), "HandoverError"), started)
        return
    except MemoryError as error:
        _fail(connection, frame, too_much_memory(error), started)
        return
    except Exception as error:  # noqa: BLE001 - an integrator's code fails this request only
        _fail(connection, frame, failure_of(error), started)
        return
    meta.update(ok=True, seconds=time.monotonic() - started, terms=terms, alike=alike)
    reply = Frame(FrameType.RESULT, request=frame.request, meta=meta, body=inline)
    _send(connection, reply, [] if result is None else [result])
    if result is not None:
        os.close(result)


def alike_by(parameters: Dict[str, Any]) -> str:
    """A text that is the same for the same parameters; empty without any."""
    return json.dumps(parameters, sort_keys=True) if parameters else ""


def _read(
    context: Context, mapped: MappedBuffers, frame: Frame, descriptors: List[int]
) -> Tuple[Request, Optional[Dict[str, Any]]]:
    """The request in a JOB, and for a chat its sender's terms. Raises RequestError."""
    meta, spare = frame.meta, list(descriptors)
    body = _view(mapped, meta["body"], spare) if meta["body"] else memoryview(frame.body)
    stored = {
        image["id"]: Image(image["media_type"], _view(mapped, image, spare))
        for image in meta["images"]
    }
    if meta["form"] == "chat":
        return read_chat(body, context.model, stored, context.max_pixels)
    check_pixels(body, context.max_pixels, "image")
    return Request(meta["question"], meta["media_type"], meta["parameters"], body), None


def _view(mapped: MappedBuffers, where: Dict[str, Any], descriptors: List[int]) -> memoryview:
    """The bytes that a JOB describes; a buffer's first descriptor is mapped and closed."""
    if where.get("fd"):
        mapped.add(where["buffer"], descriptors.pop(0), where["size"])
    return mapped.view(where["buffer"], where["offset"], where["length"])


def _fail(connection: socket.socket, frame: Frame, failure: Failure, started: float) -> None:
    # A bad upload is its sender's business; an engine that fails is the operator's.
    level = logging.WARNING if failure.kind == "engine_error" else logging.INFO
    _log.log(level, "a request was not prepared: %s", failure.location)
    meta = {"ok": False, "kind": failure.kind, "message": failure.message}
    meta.update(location=failure.location, param=failure.param, seconds=time.monotonic() - started)
    _send(connection, Frame(FrameType.RESULT, request=frame.request, meta=meta))


def _send(connection: socket.socket, frame: Frame, descriptors: Optional[List[int]] = None) -> None:
    send_record(connection, encode(frame), descriptors or [])
