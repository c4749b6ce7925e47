# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.engine.callers SPEC``: callers that each send an image, ask, and stream.

Once they are answered they delete their image, as who has no more questions does, and ask about the
next one meanwhile. A process of its own. SPEC is JSON (see ``Spec``), and so is what is printed.
"""

import asyncio
import base64
import contextlib
import json
import mmap
import random
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

GIVE_UP_SECONDS = 100.0
GAP_SECONDS = 0.060  # the longest that a stream may pause
DELETE_SECONDS = 10.0
MARK = b"data: "


@dataclass(frozen=True)
class Spec:
    """What to ask.

    :ivar questions: lengths in letters, which are tokens; one is chosen for each request.
    :ivar answers: tokens, likewise.
    :ivar data_url: whether the image is in the request itself, else it is sent before.
    :ivar texts: whether the answers' texts are wanted.
    :ivar stream: whether answers are streamed, which can't be tried again once they have begun.
    :ivar until: end at this time (time.time()) whatever is left; 0: no matter.
    """

    port: int
    model: str
    images: list[str]
    questions: list[int]
    answers: list[int]
    callers: int
    requests: int
    data_url: bool = False
    texts: bool = False
    stream: bool = True
    seed: int = 0
    until: float = 0.0


@dataclass
class Told:
    """One request; times in seconds since its start.

    :ivar long: each gap over the limit: when it ended (time.time()), and its seconds.
    :ivar gaps: how many gaps had so many milliseconds.
    :ivar image: the id of what was sent before.
    """

    began: float = 0.0
    wanted: int = 0
    uploaded: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    pieces: int = 0
    long: list[tuple[float, float]] = field(default_factory=list)
    gaps: dict[int, int] = field(default_factory=dict)
    middle_gap: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0
    made_by: dict[str, Any] = field(default_factory=dict)
    image: str = ""
    text: str = ""
    error: str = ""


@dataclass
class Callers:
    """All callers of this process."""

    spec: Spec
    left: int
    images: dict[str, mmap.mmap]
    told: list[Told] = field(default_factory=list)
    deleting: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Ask until nothing is left."""
        await asyncio.gather(*(self._caller(n) for n in range(self.spec.callers)))
        await asyncio.gather(*self.deleting)

    async def _caller(self, number: int) -> None:
        chance = random.Random(self.spec.seed * 1000 + number)
        while self.left > 0 and not (self.spec.until and time.time() > self.spec.until):
            self.left -= 1
            one = Told(began=time.time())
            try:
                async with asyncio.timeout(GIVE_UP_SECONDS):
                    await self._ask(one, chance)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                one.error = one.error or f"{type(error).__name__}: {error}"[:200]
            one.ended = time.time() - one.began
            self.told.append(one)
            if one.image:  # whoever asks next doesn't wait for that
                deleting = asyncio.create_task(self._delete(one.image))
                self.deleting.add(deleting)
                deleting.add_done_callback(self.deleting.discard)

    async def _ask(self, one: Told, chance: random.Random) -> None:
        spec = self.spec
        image = self.images[chance.choice(spec.images)]
        if spec.data_url:
            url = "data:application/dicom;base64," + base64.b64encode(image).decode()
        else:
            one.image = await self._upload(image)
            url = f"gpuwarden://{one.image}"
        one.uploaded = time.time() - one.began
        one.wanted = tokens = chance.choice(spec.answers)
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "q" * chance.choice(spec.questions)},
        ]
        body = {
            "model": spec.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        if spec.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        reader, writer = await self._post(
            "/v1/chat/completions", "application/json", json.dumps(body).encode()
        )
        try:
            await (self._listen(one, reader) if spec.stream else self._wait(one, reader))
        finally:
            writer.close()

    async def _upload(self, image: mmap.mmap) -> str:
        reader, writer = await self._post("/v1/images", "application/dicom", image)
        try:
            status, length = await _head(reader)
            answer = await reader.readexactly(length)
        finally:
            writer.close()
        if status >= 300:
            raise ValueError(f"upload: {status} {answer[:200]!r}")
        return str(json.loads(answer)["id"])

    async def _delete(self, image: str) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(DELETE_SECONDS):
                reader, writer = await self._send(f"DELETE /v1/images/{image}", "", b"")
                try:
                    await _head(reader)
                finally:
                    writer.close()

    async def _post(self, path: str, media_type: str, body: bytes | mmap.mmap) -> Any:
        return await self._send(f"POST {path}", f"Content-Type: {media_type}\r\n", body)

    async def _send(self, what: str, headers: str, body: bytes | mmap.mmap) -> Any:
        """Straight through the socket: a writer would copy the image first."""
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, ("127.0.0.1", self.spec.port))
            head = (
                f"{what} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            with contextlib.suppress(ConnectionError):  # refused by its headers: the answer says it
                await loop.sock_sendall(connection, head.encode())
                await loop.sock_sendall(connection, body)
            return await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise

    async def _wait(self, one: Told, reader: asyncio.StreamReader) -> None:
        status, length = await _head(reader)
        answer = await reader.readexactly(length)
        if status != 200:
            raise ValueError(f"{status} {answer[:300].decode(errors='replace')}")
        whole = json.loads(answer)
        usage = whole["usage"]
        one.tokens, one.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
        one.made_by = whole.get("gpuwarden", {})
        if self.spec.texts:
            one.text = whole["choices"][0]["message"]["content"]

    async def _listen(self, one: Told, reader: asyncio.StreamReader) -> None:
        status, length = await _head(reader)
        if status != 200:
            text = await reader.read(length or 1000)
            raise ValueError(f"{status} {text[:300].decode(errors='replace')}")
        gaps = Gaps()
        ended = False
        while line := await reader.readline():
            if not line.startswith(MARK):
                continue
            now = time.time()
            if line.startswith(b"data: [DONE]"):
                ended = True
                break
            event = json.loads(line[len(MARK) :])
            if "error" in event:
                raise ValueError(str(event["error"])[:300])
            if event.get("usage"):
                one.tokens = event["usage"]["completion_tokens"]
                one.prompt_tokens = event["usage"]["prompt_tokens"]
            one.made_by = event.get("gpuwarden", one.made_by)
            if not event["choices"] or not event["choices"][0]["delta"].get("content"):
                continue
            gaps.piece(now)
            if self.spec.texts:
                one.text += event["choices"][0]["delta"]["content"]
        gaps.tell(one)
        if not ended or one.tokens != one.wanted:
            raise ValueError(f"broke off after {one.pieces} pieces and {one.tokens} tokens")


class Gaps:
    """The times between the pieces of one stream."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def piece(self, now: float) -> None:
        """The next one is here."""
        self._times.append(now)

    def tell(self, one: Told) -> None:
        """Note what came."""
        one.pieces = len(self._times)
        if self._times:
            one.first = self._times[0] - one.began
        pairs = list(pairwise(self._times))
        for before, now in pairs:
            seconds = now - before
            one.gaps[int(1000 * seconds)] = one.gaps.get(int(1000 * seconds), 0) + 1
            if seconds > GAP_SECONDS:
                one.long.append((now, seconds))
        sizes = sorted(now - before for before, now in pairs)
        one.middle_gap = sizes[len(sizes) // 2] if sizes else 0.0


async def _head(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and length of an answer (0 for one in chunks)."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    length = next((one.split(":")[1] for one in lines if one.startswith("content-length:")), "0")
    return int(lines[0].split()[1]), int(length)


def _mapped(file: str) -> mmap.mmap:
    """An image that all processes of callers share."""
    with Path(file).open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)


def main(text: str) -> None:
    """Ask; print what came of it."""
    spec = Spec(**json.loads(text))
    images = {file: _mapped(file) for file in spec.images}
    callers = Callers(spec, spec.requests, images)
    asyncio.run(callers.run())
    print(json.dumps([asdict(one) for one in callers.told]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
