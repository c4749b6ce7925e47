"""Requests that have killed three workers, each time alone: not tried again for some minutes.

What is kept is a length and a keyed hash, in memory alone: it tells nobody what was asked. A new
request is hashed only while one of its length is set aside, in steps between which others have
their turn, so that this costs nothing on all other days.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from typing import Protocol

from gpuwarden.gateway.body import Body
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.marks import SECONDS, Marks

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

    :param clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._marks = Marks()

    def __len__(self) -> int:
        self._marks.forget(self._clock())
        return len(self._marks)

    async def put(self, body: Body) -> None:
        """Set it aside."""
        digest = await self._digest(body)
        self._marks.add(body.length, digest, self._clock())

    async def holds(self, body: Body) -> bool:
        """Whether this was set aside."""
        if not len(self) or not self._marks.has_length(body.length):
            return False
        return self._marks.holds(body.length, await self._digest(body))

    async def check(self, body: Body) -> None:
        """Refuse what was set aside. Raises ApiError."""
        if await self.holds(body):
            raise ApiError("worker_crashed", TEXT, param="body")

    async def _digest(self, body: Body) -> bytes:
        total = hashlib.blake2b(digest_size=32, key=self._key)
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
