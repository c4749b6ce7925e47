# SPDX-License-Identifier: Apache-2.0
"""Requests that have killed three workers, each time alone: not tried again for some minutes.

What is kept is a length and a keyed hash, which tells nobody what was asked. A new request is
hashed only while one of its length is set aside, in steps between which others have their turn, so
that this costs nothing on all other days. A file keeps hashes and key for the next process, in
memory (``/run``) and only as long as anything is set aside.
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds, write_atomically
from gpuwarden.gateway.body import Body
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.keptmarks import DIGEST_BYTES, KEY_BYTES, KeptMarks, kept, restored
from gpuwarden.gateway.marks import SECONDS, Marks

log = logging.getLogger(__name__)

SET_ASIDE_FILE = "set-aside.json"  # beside the snapshot
STEP_BYTES = 1 << 20  # hashed between two turns of the event loop: 0.5 to 2 ms
TEXT = (
    "this very request has killed three workers, each time alone in one: it is set aside for"
    f" {SECONDS / 60:g} minutes; the model's own log says what it died of"
)


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more in."""


class SetAside:
    """What was set aside, for those who give up and those who ask. Bodies must be held meanwhile.

    :param clock: seconds, of CLOCK_BOOTTIME where a file is kept.
    """

    def __init__(self, clock: Callable[[], float] = lambda: boottime_nanoseconds() / 1e9) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(KEY_BYTES)
        self._marks = Marks()
        self._file: Path | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        if len(self._marks):
            self._marks.forget(self._clock())
        return len(self._marks)

    def keep_in(self, file: Path) -> None:
        """Go on with what a former process has left there, and leave it to the next one."""
        self._file = file
        try:
            document = KeptMarks.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            text = "%s can't be read, nothing is set aside any more: %s"
            log.warning(text, file, type(error).__name__)
        else:
            self._key = bytes.fromhex(document.key)
            self._marks = restored(document, boot_id(), self._clock())
        self._keep()

    def close(self) -> None:
        """Leave the file to the next process."""
        if self._timer is not None:
            self._timer.cancel()

    async def put(self, body: Body) -> None:
        """Set it aside."""
        digest = await self._digest(body)
        self._marks.add(body.length, digest, self._clock())
        self._keep()

    async def holds(self, body: Body) -> bool:
        """Whether this was set aside."""
        if not len(self) or not self._marks.has_length(body.length):
            return False
        return self._marks.holds(body.length, await self._digest(body))

    async def check(self, body: Body) -> None:
        """Refuse what was set aside. Raises ApiError."""
        if await self.holds(body):
            raise ApiError("worker_crashed", TEXT, param="body")

    def _keep(self) -> None:
        """Write the file, or remove it where nothing is to be kept; again when that may be so."""
        self.close()
        if self._file is None:
            return
        try:
            if len(self):
                content = kept(self._marks, self._key, boot_id()).model_dump_json().encode()
                write_atomically(self._file, content, mode=0o600)
                self._timer = asyncio.get_running_loop().call_later(SECONDS + 1, self._keep)
            else:
                self._file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("what is set aside ends with this process: %s: %s", self._file, error)

    async def _digest(self, body: Body) -> bytes:
        total = hashlib.blake2b(digest_size=DIGEST_BYTES, key=self._key)
        question = (body.question or "").encode("utf-8", "surrogateescape")
        total.update(f"{body.form} {len(question)} ".encode())
        total.update(question)
        await take_in(total, body.image)
        return total.digest()


async def take_in(total: Hash, content: memoryview) -> None:
    """Hash a body without keeping the loop from its other work."""
    for offset in range(0, len(content), STEP_BYTES):
        total.update(content[offset : offset + STEP_BYTES])
        await asyncio.sleep(0)
