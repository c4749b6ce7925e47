# SPDX-License-Identifier: Apache-2.0
"""Nobody ever gets another's answer: each request carries a marker in its image and its prompt.

Real workers at a real front door, killed and started again; chats whole and streamed, forms, raw
bodies, images that come back as files of all sizes, references, retries and durable jobs; callers
that hang up at any time; buffers of all sizes in a pool that is too small, so that each is used
again and again. Or small requests nearly all, so that the workers' GPU threads listen by
themselves, are disturbed in that by the others, and begin again.
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
from tests.soak.front_door import LOOK_SECONDS, PATIENCE_SECONDS, KeptWorker
from tests.soak.thermal import Figures

MIB = 1 << 20
CALLERS = 12
WORKERS = 2
RETRY_SHARE = 0.1
IMAGES_SECONDS = 2.0
MODEL = "test-model"
JSON = "application/json"


@dataclass(frozen=True)
class Mix:
    """What is asked, and of whom.

    :ivar kinds: shares of what ``Campaign`` asks; each job is three writes to the disk.
    :ivar hang_up_share: of the callers, who don't wait.
    """

    name: str
    settings: dict[str, Any]
    sizes: tuple[int, ...] = (10, 3_000, 60_000, 66_000, 300_000, MIB + 5, 3 * MIB)
    weights: tuple[int, ...] = (40, 20, 15, 10, 10, 4, 1)
    kinds: tuple[float, ...] = (20, 16, 20, 20, 20, 4)
    hang_up_share: float = 0.08


MIXED = Mix("markers", {"options": {"return_body": True}})
SHORT = Mix(
    "markers-short",
    {"engine": "model_classes:Reciting"},
    sizes=(10, 300, 3_000, 66_000),
    weights=(60, 30, 10, 1),
    kinds=(97, 0, 1, 1, 0.5, 0.5),
    hang_up_share=0.01,
)


@dataclass
class Seen:
    """What came of all requests."""

    wanted: int
    begun: int = 0
    answered: int = 0
    listened: int = 0  # of them by a GPU thread that reads itself
    hung_up: int = 0
    broken_off: int = 0
    expired: int = 0
    jobs: int = 0
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


def marked(random_: random.Random, number: int, mix: Mix) -> Marked:
    marker = f"marker-{number}-{random_.getrandbits(64):016x}"
    size = random_.choices(mix.sizes, mix.weights)[0]
    filling = hashlib.sha256(marker.encode()).digest()
    return Marked(marker, (marker.encode() + filling * (size // 32 + 1))[: max(size, 40)])


class Campaign:
    """Callers that go on until enough has been asked."""

    def __init__(self, node: GatewayNode, wanted: int, seed: int, mix: Mix) -> None:
        self.node = node
        self.mix = mix
        self.seen = Seen(wanted)
        self.done = asyncio.Event()
        self._seed = seed

    async def run(self) -> Seen:
        callers = [self._call(random.Random(self._seed + one)) for one in range(CALLERS)]
        await asyncio.gather(*callers)
        # Those with a key outlive callers that hung up: their workers have to as well.
        queue = self.node.service.dispatcher.queue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while queue.held_bytes:  # noqa: ASYNC110 - no event tells of it
                    await asyncio.sleep(LOOK_SECONDS)
        self.seen.expect("bytes of requests are left", queue.held_bytes == 0)
        self.done.set()
        return self.seen

    async def _call(self, random_: random.Random) -> None:
        kinds = (self._raw, self._returned, self._chat, self._stream, self._referred, self._job)
        while self.seen.begun < self.seen.wanted:
            self.seen.begun += 1
            request = marked(random_, self.seen.begun, self.mix)
            (ask,) = random_.choices(kinds, self.mix.kinds)
            if random_.random() >= self.mix.hang_up_share:
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
            self.seen.listened += b'"listens":true' in reply.body
            for text in expected:
                what = f"{request.marker} in {reply.body[:200]!r}"
                self.seen.expect(what, text.encode() in reply.body)
        self.seen.expect(
            f"another's marker beside {request.marker}",
            reply.body.count(b"marker-") == reply.body.count(request.marker.encode()),
        )

    async def _post(self, body: bytes, **more: Any) -> Reply:
        return await self.node.post(body, seconds=PATIENCE_SECONDS, **more)

    async def _raw(self, request: Marked, random_: random.Random) -> None:
        path = f"/predict?question={request.marker}"
        headers = {"Idempotency-Key": request.marker} if random_.random() < RETRY_SHARE else {}
        times = 2 if headers else 1
        posts = [self._post(request.image, path=path, headers=headers) for _ in range(times)]
        for reply in await asyncio.gather(*posts):
            self._judge(request, reply, request.marker, request.digest)

    async def _returned(self, request: Marked, random_: random.Random) -> None:
        path = f"/predict?question={request.marker}"
        headers = {"Idempotency-Key": request.marker} if random_.random() < RETRY_SHARE else {}
        reply = await self._post(request.image, path=path, headers=headers, media_type="image/png")
        self._judge(request, reply, request.marker)
        if reply.status == 200:
            told = json.loads(reply.headers["x-gpuwarden-result"])["answer"]
            is_right = (told["question"], told["body_sha256"]) == (request.marker, request.digest)
            is_right = is_right and reply.body == request.image
            self.seen.expect(f"the file of {request.marker}", is_right)

    async def _referred(self, request: Marked, random_: random.Random) -> None:
        sent_at = time.monotonic()
        sent = await self._post(request.image, path="/v1/images", media_type="image/png")
        if sent.status != 201:
            self.seen.statuses[sent.status] += 1
            return
        reply = await self._post(
            chat(request, sent.json["url"]), path="/v1/chat/completions", media_type=JSON
        )
        if reply.status == 404 and time.monotonic() - sent_at > IMAGES_SECONDS:
            self.seen.expired += 1  # on a machine that took so long between the two
            return
        self._judge(request, reply, f"{request.marker} {request.digest}")
        path = f"/v1/images/{sent.json['id']}"
        await self._post(b"", path=path, method="DELETE", media_type=None)

    async def _job(self, request: Marked, random_: random.Random) -> None:
        path = f"/v1/jobs?question={request.marker}"
        told = await self._post(request.image, path=path)
        if told.status != 202:
            self.seen.statuses[told.status] += 1
            return
        self.seen.jobs += 1
        path = f"/v1/jobs/{told.json['id']}?wait={int(PATIENCE_SECONDS)}"
        reply = await self._post(b"", path=path, method="GET", media_type=None)
        self._judge(request, reply, request.marker, request.digest)

    async def _chat(self, request: Marked, random_: random.Random) -> None:
        body = chat(request, data_url(request))
        reply = await self._post(body, path="/v1/chat/completions", media_type=JSON)
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
        answer = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
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


async def kill_workers(
    campaign: Campaign, number: int, seconds: float, seed: int, log_level: str
) -> None:
    """Keep worker ``number`` running, and kill it again and again."""
    random_ = random.Random(seed)
    settings = {"max_batch": 3, "log_level": log_level, **campaign.mix.settings}
    async with KeptWorker(campaign.node.dispatch_path, number, **settings) as worker:
        while not campaign.done.is_set():
            await worker.until_ready()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds * (0.5 + random_.random())):
                    await campaign.done.wait()
            if not campaign.done.is_set():
                worker.kill()
                campaign.seen.kills += 1


async def campaign(
    wanted: int, seed: int, kill_seconds: float, mix: Mix = MIXED, log_level: str = "error"
) -> Seen:
    """Ask ``wanted`` times; the workers are killed every ``kill_seconds``, one after the other."""
    async with gateway_node(
        grace_seconds=30.0,
        pool_bytes=64 * MIB,
        body_limit_bytes=8 * MIB,
        images_bytes=16 * MIB,
        images_seconds=IMAGES_SECONDS,
    ) as node:
        going = Campaign(node, wanted, seed, mix)
        keepers = [
            asyncio.create_task(kill_workers(going, number, kill_seconds, seed + number, log_level))
            for number in range(WORKERS)
        ]
        await node.until(lambda: bool(node.ready_links()))
        seen = await going.run()
        await asyncio.gather(*keepers)
        dispatcher = node.service.dispatcher
        if mix is MIXED:
            seen.expect("no result came in a lent buffer", dispatcher.lending.lent > 0)
        else:
            seen.expect("no GPU thread has listened", seen.listened > seen.answered // 10)
        kept = dispatcher.lending.pool.in_use_bytes
        seen.expect(
            "more results are left than retries may ask for", kept <= 16 * MIB + 4096 * 1000
        )
        return seen


def figures(wanted: int, seed: int, kill_seconds: float, mix: Mix) -> Figures:
    """The campaign as a line of the table."""
    started = time.monotonic()
    logging.disable(logging.ERROR)  # each kill is told there
    seen = asyncio.run(campaign(wanted, seed, kill_seconds, mix))
    ends = ", ".join(f"{count} x {status}" for status, count in sorted(seen.statuses.items()))
    print(
        f"  {seen.answered} answered ({seen.listened} by a GPU thread that listened),"
        f" {seen.jobs} jobs among them, {seen.hung_up} hung up,"
        f" {seen.broken_off} broken off, {seen.expired} images expired, {seen.kills} kills"
        f" in {time.monotonic() - started:.0f} s ({ends})",
        file=sys.stderr,
    )
    return Figures(mix.name, seen.begun, seen.wrong)
