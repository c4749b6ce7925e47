# SPDX-License-Identifier: Apache-2.0
"""Opens and shuts the front door for a time, as the guard asks it to over the control socket.

A pause is in a file before it is answered, so that it outlives this process; not the boot.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from gpuwarden.control.requests import PAUSE, RESUME, PauseRequest
from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds, write_atomically
from gpuwarden.control.socket import ControlError, Document, Handler
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.pause import Pause
from gpuwarden.systemd.events import Event, tell

log = logging.getLogger(__name__)

PAUSE_FILE = "pause.json"  # beside the snapshot


class Door:
    """Keeps ``dispatcher``'s pause, and the file that it is remembered by."""

    def __init__(self, dispatcher: Dispatcher, file: Path) -> None:
        self._dispatcher = dispatcher
        self._file = file
        self._timer: asyncio.TimerHandle | None = None
        self._take(self._remembered())

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By the name of the request."""
        return {PAUSE: self._pause, RESUME: self._resume}

    def close(self) -> None:
        """Leave a pause to the next process."""
        if self._timer is not None:
            self._timer.cancel()

    def _pause(self, request: Document) -> Document:
        try:
            seconds = PauseRequest.model_validate(request).seconds
        except ValidationError as error:
            raise ControlError("InvalidArgument", error.errors()[0]["msg"]) from None
        pause = Pause(
            boot_id=boot_id(),
            until_boottime_nanoseconds=boottime_nanoseconds() + seconds * 10**9,
            until_unix_microseconds=time.time_ns() // 1000 + seconds * 10**6,
        )
        try:
            write_atomically(self._file, pause.model_dump_json().encode(), mode=0o600)
        except OSError as error:
            raise ControlError("Failed", f"it can't be kept: {error.strerror}") from error
        self._take(pause)
        tell(
            Event.GATEWAY_PAUSED,
            f"{pause.sentence}: new requests are refused, accepted ones are answered",
            logging.WARNING,
        )
        return {}

    def _resume(self, request: Document) -> Document:
        if self._dispatcher.running_pause():
            self._end("new requests are accepted again")
        return {}

    def _take(self, pause: Pause | None) -> None:
        self.close()
        self._dispatcher.pause = pause
        self._dispatcher.changed()
        if pause is not None:
            self._wait(pause)

    def _wait(self, pause: Pause) -> None:
        left_seconds = pause.left_seconds(boottime_nanoseconds())
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(left_seconds, self._look, pause)

    def _look(self, pause: Pause) -> None:
        if pause.runs(boottime_nanoseconds()):
            self._wait(pause)
        else:
            self._end("the pause is over: new requests are accepted again")

    def _end(self, message: str) -> None:
        self._take(None)
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s can't be removed: %s", self._file, error.strerror)
        tell(Event.GATEWAY_RESUMED, message)

    def _remembered(self) -> Pause | None:
        """The pause that a former process was told; what makes no sense counts as none."""
        try:
            pause = Pause.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("%s can't be read, nothing is paused: %s", self._file, error)
            return None
        return pause if pause.is_believable(boot_id(), boottime_nanoseconds()) else None
