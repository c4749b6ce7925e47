"""Nobody ever gets another's answer: each request carries a marker in its image and its prompt.

Real workers at a real front door, killed and started again; chats whole and streamed, forms, raw
bodies, images that come back as files of all sizes, references and retries; callers that hang up at
any time; buffers of all sizes in a pool that is too small, so that each is used again and again.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.integration.gateway_node import GatewayNode, Reply, gateway_node
from tests.integration.real_worker import real_worker
from tests.soak.thermal import Figures

MIB = 1 << 20
CALLERS = 12
WORKERS = 2
SIZES = (10, 3_000, 60_000, 66_000, 300_000, MIB + 5, 3 * MIB)
WEIGHTS = (40, 20, 15, 10, 10, 4, 1)
HANG_UP_SHARE = 0.08
RETRY_SHARE = 0.1
MODEL = "test-model"
JSON = "application/json"


@dataclass
class Seen:
    """What came of all requests."""

    wanted: int
    begun: int = 0
    answered: int = 0
    hung_up: int = 0
    broken_off: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def expect(self, what: str, is_right: bool) -> None:
        if not is_right:
            self.wrong.append(what)


@dataclass(frozen=True)
class Marked:
    """A request that can be told from all others."""

    marker: str
    image: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.image).hexdigest()


def marked(random_: random.Random, number: int) -> Marked:
    marker = f"marker-{number}-{random_.getrandbits(64):016x}"
    size = random_.choices(SIZES, WEIGHTS)[0]
    filling = hashlib.sha256(marker.encode()).digest()
    return Marked(marker, (marker.encode() + filling * (size // 32 + 1))[: max(size, 40)])


class Campaign:
    """Callers that go on until enough has been asked."""

    def __init__(self, node: GatewayNode, wanted: int, seed: int) -> None:
        self.node = node
        self.seen = Seen(wanted)
        self.done = asyncio.Event()
        self._seed = seed

    async def run(self) -> Seen:
        callers = [self._call(random.Random(self._seed + one)) for one in range(CALLERS)]
        await asyncio.gather(*callers)
        self.done.set()
        return self.seen

    async def _call(self, random_: random.Random) -> None:
        kinds = (self._raw, self._returned, self._chat, self._stream, self._referred)
        while self.seen.begun < self.seen.wanted:
            self.seen.begun += 1
            request = marked(random_, self.seen.begun)
            ask = random_.choice(kinds)
            if random_.random() >= HANG_UP_SHARE:
                await ask(request, random_)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random_.random() * 0.03):
                    await ask(request, random_)
            self.seen.hung_up += 1

    def _judge(self, request: Marked, reply: Reply, *expected: str) -> None:
        self.seen.statuses[reply.status] += 1
        if reply.status == 200:
            self.seen.answered += 1
            for text in expected:
                what = f"{request.marker} in {reply.body[:200]!r}"
                self.seen.expect(what, text.encode() in reply.body)
        self.seen.expect(
            f"another's marker beside {request.marker}",
            reply.body.count(b"marker-") == reply.body.count(request.marker.encode()),
        )

    async def _raw(self, request: Marked, random_: random.Random) -> None:
        path = f"/predict?question={request.marker}"
        headers = {"Idempotency-Key": request.marker} if random_.random() < RETRY_SHARE else {}
        times = 2 if headers else 1
        posts = [self.node.post(request.image, path=path, headers=headers) for _ in range(times)]
        for reply in await asyncio.gather(*posts):
            self._judge(request, reply, request.marker, request.digest)

    async def _returned(self, request: Marked, random_: random.Random) -> None:
        path = f"/predict?question={request.marker}"
        headers = {"Idempotency-Key": request.marker} if random_.random() < RETRY_SHARE else {}
        reply = await self.node.post(
            request.image, path=path, headers=headers, media_type="image/png"
        )
        self._judge(request, reply, request.marker)
        if reply.status == 200:
            told = json.loads(reply.headers["x-gpuwarden-result"])["answer"]
            is_right = (told["question"], told["body_sha256"]) == (request.marker, request.digest)
            is_right = is_right and reply.body == request.image
            self.seen.expect(f"the file of {request.marker}", is_right)

    async def _referred(self, request: Marked, random_: random.Random) -> None:
        sent = await self.node.post(request.image, path="/v1/images", media_type="image/png")
        if sent.status != 201:
            self.seen.statuses[sent.status] += 1
            return
        reply = await self.node.post(
            chat(request, sent.json["url"]), path="/v1/chat/completions", media_type=JSON
        )
        self._judge(request, reply, f"{request.marker} {request.digest}")
        path = f"/v1/images/{sent.json['id']}"
        await self.node.post(b"", path=path, method="DELETE", media_type=None)

    async def _chat(self, request: Marked, random_: random.Random) -> None:
        body = chat(request, data_url(request))
        reply = await self.node.post(body, path="/v1/chat/completions", media_type=JSON)
        self._judge(request, reply, f"{request.marker} {request.digest}")

    async def _stream(self, request: Marked, random_: random.Random) -> None:
        body = chat(request, data_url(request), stream=True)
        status, text, whole = await streamed(self.node, body)
        self.seen.statuses[status] += 1
        if status != 200:
            return
        expected = f"{request.marker} {request.digest}"
        if whole:
            self.seen.answered += 1
            self.seen.expect(f"{request.marker} in {text[:200]!r}", text == expected)
        else:
            self.seen.broken_off += 1
            self.seen.expect(f"{request.marker} before {text[:200]!r}", expected.startswith(text))


def data_url(request: Marked) -> str:
    return f"data:image/png;base64,{base64.b64encode(request.image).decode()}"


def chat(request: Marked, url: str, **more: Any) -> bytes:
    parts = [
        {"type": "text", "text": request.marker},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return json.dumps(
        {"messages": [{"role": "user", "content": parts}], "model": MODEL, **more}
    ).encode()


async def streamed(node: GatewayNode, body: bytes) -> tuple[int, str, bool]:
    """Status, text and whether the answer came to its end."""
    reader, writer = await node.connect()
    try:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            writer.write(head.encode() + body)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    status = int(top.split()[1])
    if status != 200:
        return status, "", False
    texts, finish = [], None
    for line in rest.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:]).get("choices", []):
                texts.append(choice["delta"].get("content", ""))
                finish = choice["finish_reason"] or finish
    return status, "".join(texts), finish == "stop"


async def kill_workers(campaign: Campaign, number: int, seconds: float, seed: int) -> None:
    """Keep worker ``number`` running, and kill it again and again."""
    random_ = random.Random(seed)
    while not campaign.done.is_set():
        settings = {"number": number, "max_batch": 3, "options": {"return_body": True}}
        async with real_worker(campaign.node, **settings) as worker:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds * (0.5 + random_.random())):
                    await campaign.done.wait()
            if not campaign.done.is_set():
                worker.process.kill()
                campaign.seen.kills += 1


async def campaign(wanted: int, seed: int, kill_seconds: float) -> Seen:
    """Ask ``wanted`` times; the workers are killed every ``kill_seconds``, one after the other."""
    async with gateway_node(
        grace_seconds=30.0,
        pool_bytes=64 * MIB,
        body_limit_bytes=8 * MIB,
        images_bytes=16 * MIB,
        images_seconds=2.0,
    ) as node:
        going = Campaign(node, wanted, seed)
        keepers = [
            asyncio.create_task(kill_workers(going, number, kill_seconds, seed + number))
            for number in range(WORKERS)
        ]
        await node.until(lambda: bool(node.ready_links()))
        seen = await going.run()
        await asyncio.gather(*keepers)
        dispatcher = node.service.dispatcher
        seen.expect("bytes of requests are left", dispatcher.queue.held_bytes == 0)
        seen.expect("no result came in a lent buffer", dispatcher.lending.lent > 0)
        kept = dispatcher.lending.pool.in_use_bytes
        seen.expect(
            "more results are left than retries may ask for", kept <= 16 * MIB + 4096 * 1000
        )
        return seen


def figures(wanted: int, seed: int, kill_seconds: float) -> Figures:
    """The campaign as a line of the table."""
    started = time.monotonic()
    logging.disable(logging.ERROR)  # each kill is told there
    seen = asyncio.run(campaign(wanted, seed, kill_seconds))
    ends = ", ".join(f"{count} x {status}" for status, count in sorted(seen.statuses.items()))
    print(
        f"  {seen.answered} answered, {seen.hung_up} hung up, {seen.broken_off} broken off,"
        f" {seen.kills} kills in {time.monotonic() - started:.0f} s ({ends})",
        file=sys.stderr,
    )
    return Figures("markers", seen.begun, seen.wrong)
