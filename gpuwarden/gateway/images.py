# SPDX-License-Identifier: Apache-2.0
"""Images that are sent once and asked about often: ``gpuwarden://ID``.

They lie in buffers of the pool, within a budget of their own, and are gone a bounded time after
their last use. Their id is 128 random bits: who knows it sent it, or was told.
"""

import asyncio
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from gpuwarden.gateway.alarm import Alarm
from gpuwarden.gateway.body import Body, Room, StoredImage
from gpuwarden.gateway.buffers import BufferPool, class_bytes
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.settings import GatewaySettings

ID_BYTES = 16
REFERENCE = "gpuwarden://"


@dataclass
class ImageLimits:
    """Bounds of the store.

    :param total_bytes: buffers of all images together.
    :param seconds: an image is gone so long after its last use.
    """

    total_bytes: int = 256 << 20
    seconds: float = 600.0


def image_limits(settings: GatewaySettings) -> ImageLimits:
    """The store's part of the settings."""
    return ImageLimits(settings.images_bytes, settings.images_seconds)


@dataclass(eq=False)
class _Kept:
    image: StoredImage
    until: float


@dataclass(eq=False)
class Deposit:
    """An image that is being received; ``close`` must be called whatever becomes of it."""

    room: Room
    close: Callable[[], None]
    reserved_bytes: int = 0


@dataclass
class ImageStore:
    """All images that were sent, by id."""

    pool: BufferPool
    limits: ImageLimits
    body_limit_bytes: int
    held_bytes: int = 0
    _kept: dict[str, _Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._alarm = Alarm(self._expire)

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, length: int) -> Deposit:
        """Make room for an image of ``length`` bytes, 0 if unknown. Raises ApiError 429."""

        def claim(larger: int) -> None:
            self._reserve(larger - deposit.reserved_bytes)
            deposit.reserved_bytes = larger

        def close() -> None:
            room.free()
            self.held_bytes -= deposit.reserved_bytes
            deposit.reserved_bytes = 0

        room = Room(self.pool, self.body_limit_bytes, claim)
        deposit = Deposit(room, close)
        claim(class_bytes(max(1, length)))
        try:
            room.reserve(length)
        except ApiError:
            close()
            raise
        return deposit

    def keep(self, deposit: Deposit, body: Body) -> tuple[StoredImage, float]:
        """Keep what was received; the image and how many seconds it stays. Raises ApiError 429."""
        room = deposit.room
        if room.buffer is None:
            room.acquire(body.length)
        buffer = room.buffer
        if buffer is None:
            raise RuntimeError("a room that was acquired has no buffer")
        if body.inline:
            buffer.view[: body.length] = body.inline
        room.buffer = None  # from now on it is the store's to free
        deposit.reserved_bytes = 0
        identifier = secrets.token_hex(ID_BYTES)
        image = StoredImage(identifier, body.media_type, buffer, body.offset, body.length)
        self._kept[identifier] = _Kept(image, self._now() + self.limits.seconds)
        self._set_alarm()
        return image, self.limits.seconds

    def find(self, identifier: str) -> StoredImage | None:
        """An image, which stays for as long again; None if there is none (any more)."""
        kept = self._kept.pop(identifier, None)
        if kept is None:
            return None
        kept.until = self._now() + self.limits.seconds
        self._kept[identifier] = kept  # the last to go
        return kept.image

    def remove(self, identifier: str) -> bool:
        """Forget an image; whether there was one. Who works on it finishes."""
        kept = self._kept.pop(identifier, None)
        if kept is None:
            return False
        self.held_bytes -= kept.image.buffer.size
        self.pool.release(kept.image.buffer)
        return True

    def close(self) -> None:
        """Forget all."""
        self._alarm.cancel()
        for identifier in list(self._kept):
            self.remove(identifier)

    def _reserve(self, size: int) -> None:
        if self.held_bytes + size > self.limits.total_bytes:
            first = next(iter(self._kept.values()), None)
            wait = 1.0 if first is None else first.until - self._now()
            raise ApiError(
                "queue_full",
                "no room for another image now: delete what isn't asked about any more",
                retry_after_seconds=max(1, math.ceil(wait)),
            )
        self.held_bytes += size

    def _expire(self) -> None:
        now = self._now()
        for identifier in [key for key, kept in self._kept.items() if kept.until <= now]:
            self.remove(identifier)
        self._set_alarm()

    def _set_alarm(self) -> None:
        self._alarm.set(min((kept.until for kept in self._kept.values()), default=None))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
