# SPDX-License-Identifier: Apache-2.0
"""By what a request that was set aside is known again: bounded in number and time. Pure."""

SECONDS = 600.0  # long enough for every client's own retries to end
LIMIT = 256  # more than three workers' deaths each can bring about in that time


class Marks:
    """What is set aside, oldest first; times in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._until: dict[tuple[int, bytes], float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, length: int, digest: bytes, now: float) -> None:
        """One more, for the usual time; the oldest go if there are too many."""
        self._until.pop((length, digest), None)
        self._until[length, digest] = now + SECONDS
        while len(self._until) > LIMIT:
            del self._until[next(iter(self._until))]

    def forget(self, now: float) -> None:
        """Drop those whose time is over."""
        for mark in [mark for mark, until in self._until.items() if until <= now]:
            del self._until[mark]

    def has_length(self, length: int) -> bool:
        """Whether it is worth hashing something of that length."""
        return any(length == one for one, _ in self._until)

    def until(self) -> list[tuple[int, bytes, float]]:
        """All of them, oldest first, with the end of their time."""
        return [(*mark, until) for mark, until in self._until.items()]

    def restore(self, length: int, digest: bytes, until: float, now: float) -> None:
        """One that a former process has set aside; what is over or can't be so is nothing."""
        if now < until <= now + SECONDS and len(self._until) < LIMIT:
            self._until[length, digest] = until

    def holds(self, length: int, digest: bytes) -> bool:
        """Whether just this is set aside."""
        return (length, digest) in self._until
