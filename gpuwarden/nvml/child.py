# SPDX-License-Identifier: Apache-2.0
"""Asks the driver in a forked child: a driver that hangs must not hang whoever asks."""

import json
import logging
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

from gpuwarden.nvml.errors import NvmlError

log = logging.getLogger(__name__)


class ChildError(Exception):
    """The child has brought no answer; the text says why and what to do.

    :ivar hung: whether the driver didn't answer at all.
    """

    def __init__(self, text: str, *, hung: bool = False) -> None:
        super().__init__(text)
        self.hung = hung


def in_child(ask: Callable[[], dict[str, Any]], deadline_seconds: float) -> dict[str, Any]:
    """What ``ask`` gives in a forked child (it must survive JSON), no later than the deadline.

    A fork, since the parent has neither threads nor a driver open, and a fresh interpreter would
    have to find its way to our own modules again.

    :raises ChildError: the driver failed, the child died or didn't answer in time.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _answer(sender, ask)
    os.close(sender)
    try:
        answer = _read_until(receiver, time.monotonic() + deadline_seconds)
    finally:
        os.close(receiver)
    if answer is None:
        # SIGKILL may not end it (uninterruptible sleep); it is not waited for either.
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, os.WNOHANG)
        raise ChildError(
            f"the NVIDIA driver did not answer within {deadline_seconds:.0f} s: "
            "see journalctl -k for Xid messages; a reboot may be needed",
            hung=True,
        )
    os.waitpid(child, 0)
    return _understand(answer)


def _answer(sender: int, ask: Callable[[], dict[str, Any]]) -> None:
    """The child's whole life: ask, answer, end without running the parent's exit handlers."""
    status = 1
    try:
        _leave_streams()
        try:
            document: dict[str, Any] = {"answer": ask()}
        except NvmlError as error:
            document = {"error": str(error)}
        except Exception:  # noqa: BLE001 - a fork must never return into its parent's stack
            document = {"broke": traceback.format_exc()}
        with os.fdopen(sender, "w", encoding="utf-8") as stream:
            json.dump(document, stream)
        status = 0
    finally:
        os._exit(status)


def _leave_streams() -> None:
    """Else a child that hangs for ever would keep open what a pipe's reader waits for."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def _read_until(receiver: int, deadline: float) -> bytes | None:
    """All that comes until the end of the pipe; None if that doesn't come in time."""
    chunks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([receiver], [], [], left)[0]:
            return None
        chunk = os.read(receiver, 65536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def _understand(answer: bytes) -> dict[str, Any]:
    try:
        document = json.loads(answer)
    except ValueError:
        document = {"broke": ""}
    if "broke" in document:
        if document["broke"]:
            log.error("%s", document["broke"])
        raise ChildError("the process that asked the NVIDIA driver died: see journalctl -k")
    if "error" in document:
        raise ChildError(document["error"])
    found: dict[str, Any] = document["answer"]
    return found
