# SPDX-License-Identifier: Apache-2.0
"""Idempotency-Key: a retry joins the request that it repeats. Pure.

The key stands for one request with one body: another body under it is an error. Answers are kept
for a bounded time in bounded memory; failures aren't, so that a retry can do better.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gpuwarden.gateway.errors import ApiError

KEY_LIMIT_CHARACTERS = 255

Work = TypeVar("Work")


def check_key(key: str) -> str:
    """``key`` if it can be one. Raises ApiError."""
    if not 1 <= len(key) <= KEY_LIMIT_CHARACTERS or not key.isascii() or not key.isprintable():
        raise ApiError(
            "invalid_request",
            f"the key has 1 to {KEY_LIMIT_CHARACTERS} printable ASCII characters",
            param="Idempotency-Key",
        )
    return key


@dataclass(eq=False)
class Attempt(Generic[Work]):
    """The request that a key stands for.

    :ivar digest: of everything that it says.
    :ivar until: when its answer is forgotten; None while it runs.
    """

    key: str
    digest: bytes
    work: Work
    until: float | None = None
    kept_bytes: int = 0

    def check_same(self, digest: bytes) -> None:
        """Raises ApiError 422 if what came now under its key is another request."""
        if self.digest != digest:
            raise ApiError(
                "idempotency_mismatch",
                "this key came with another request before: choose a new one",
                param="Idempotency-Key",
            )


@dataclass
class Attempts(Generic[Work]):
    """The requests that came with a key, oldest first; times in seconds of the caller's clock.

    :param on_dropped: told of each whose answer is not kept any more, or never was.
    """

    seconds: float = 600.0
    limit: int = 1000
    limit_bytes: int = 16 << 20
    kept_bytes: int = 0
    on_dropped: Callable[[Work], None] = lambda work: None
    _attempts: dict[str, Attempt[Work]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._attempts)

    def known(self, key: str, now: float) -> Attempt[Work] | None:
        """The request that came under a key, if any."""
        self.forget(now)
        return self._attempts.get(key)

    def begin(self, key: str, digest: bytes, work: Work, now: float) -> Attempt[Work]:
        """A request has begun under a new key."""
        self.forget(now)
        attempt = self._attempts[key] = Attempt(key, digest, work)
        return attempt

    def finish(self, attempt: Attempt[Work], answer_bytes: int, now: float) -> None:
        """It was answered: keep that for a while."""
        if self._attempts.get(attempt.key) is attempt:
            attempt.until = now + self.seconds
            attempt.kept_bytes = answer_bytes
            self.kept_bytes += answer_bytes
            self.forget(now)

    def drop(self, attempt: Attempt[Work]) -> None:
        """It failed: a retry is a request of its own."""
        if self._attempts.get(attempt.key) is attempt:
            del self._attempts[attempt.key]
            self.kept_bytes -= attempt.kept_bytes
            self.on_dropped(attempt.work)

    def clear(self) -> None:
        """Forget all."""
        for attempt in list(self._attempts.values()):
            self.drop(attempt)

    @property
    def next_end(self) -> float | None:
        """When the next answer is too old; None while none is kept."""
        ends = (one.until for one in self._attempts.values() if one.until is not None)
        return min(ends, default=None)

    def forget(self, now: float) -> None:
        """Drop what is too old, and the oldest of what is too much; what runs stays."""
        for attempt in [one for one in self._attempts.values() if one.until is not None]:
            too_much = len(self._attempts) > self.limit or self.kept_bytes > self.limit_bytes
            if too_much or (attempt.until or 0.0) <= now:
                self.drop(attempt)
