# SPDX-License-Identifier: Apache-2.0
"""The pieces of an answer's text as they come, for any number of readers."""

import asyncio
from collections.abc import AsyncIterator

LIMIT_CHARACTERS = 1 << 20  # of one answer, kept until its request ends


class Pieces:
    """Kept from the first on, so that who joins late misses nothing."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.characters = 0
        self._closed = False
        self._news: asyncio.Event | None = None  # where somebody waits for it

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, text: str) -> bool:
        """One more piece; False where the answer has grown too long to be kept."""
        self.characters += len(text)
        if self.characters > LIMIT_CHARACTERS:
            return False
        self._texts.append(text)
        self._wake()
        return True

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        if self._news is not None:
            self._wake()

    async def first(self) -> None:
        """Wait for a piece or the end."""
        if not self._texts and not self._closed:
            await self._wait()

    async def follow(self) -> AsyncIterator[str]:
        """All pieces, as they come, until the end. What has gathered comes together."""
        read = 0
        while True:
            if read < len(self._texts):
                gathered = "".join(self._texts[read:])
                read = len(self._texts)
                yield gathered
            elif self._closed:
                return
            else:
                await self._wait()

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        await self._news.wait()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None
