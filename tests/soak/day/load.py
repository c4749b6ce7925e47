# SPDX-License-Identifier: Apache-2.0
"""Callers of all kinds: people who wait, streams, some who hang up, durable jobs.

Each gets its own answer, or is refused at the door with the time to come back.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import random
import socket
import threading
from collections import Counter
from typing import Any

CALLERS = 4
BODY_BYTES = (2_000, 2_000, 70_000, 1_500_000)
KINDS = ("predict", "stream", "hang_up", "job")
BY_DAY, BY_NIGHT = (60, 20, 10, 10), (5, 5, 5, 85)
BUSY_PAUSE_SECONDS, QUIET_PAUSE_SECONDS = 0.05, 1.0
PATIENCE_SECONDS = 120.0  # the service's own limit is 30 s; a job may wait for its turn
REFUSED_SECONDS = 0.5
REFUSALS = (429, 503)
JSON_TYPE, IMAGE_TYPE = "application/json", "application/octet-stream"


class Load:
    """The callers.

    :ivar share: how busy it is, 0 to 1; below a half it is night, and jobs come.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.share = 0.0
        self.ended: Counter[str] = Counter()
        self.faults: list[str] = []
        self._port = port
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._serial = 0
        self._model = ""
        self._threads = [
            threading.Thread(target=self._go_on, args=(random.Random(f"{seed} {number}"),))
            for number in range(CALLERS)
        ]

    def start(self) -> None:
        """Begin to ask."""
        _, text = self._send("GET", "/v1/models")
        self._model = json.loads(text)["data"][0]["id"]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until each caller has its last answer."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, chance: random.Random) -> None:
        while True:
            pause = QUIET_PAUSE_SECONDS + self.share * (BUSY_PAUSE_SECONDS - QUIET_PAUSE_SECONDS)
            if self._over.wait(2 * pause * chance.random()):
                return
            with self._lock:
                self._serial += 1
                name = f"question-{self._serial}"
            body = name.encode().ljust(chance.choice(BODY_BYTES), b".")
            (kind,) = chance.choices(KINDS, BY_DAY if self.share >= 0.5 else BY_NIGHT)
            try:
                self._ask(kind, name, body, chance)
            except (OSError, http.client.HTTPException, KeyError) as error:
                self._fault(f"{kind}: {error!r}")

    def _ask(self, kind: str, name: str, body: bytes, chance: random.Random) -> None:
        digest = hashlib.sha256(body).hexdigest()
        if kind == "hang_up":
            self._hang_up(name, body, chance)
        elif kind == "stream":
            question = chat(self._model, name, body)
            status, text = self._send("POST", "/v1/chat/completions", question, JSON_TYPE)
            self._judge(kind, status, text, spoken(text), f"{name} {digest}")
        elif kind == "predict":
            status, text = self._send("POST", f"/predict?question={name}", body)
            self._judge(kind, status, text, answer_of(text, "answer"), (name, digest))
        else:
            status, text = self._send("POST", f"/v1/jobs?question={name}", body)
            if status == 202:
                path = f"/v1/jobs/{json.loads(text)['id']}?wait=60"
                status, text = self._send("GET", path)
            self._judge(kind, status, text, answer_of(text, "result", "answer"), (name, digest))

    def _hang_up(self, name: str, body: bytes, chance: random.Random) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            head = f"POST /predict?question={name} HTTP/1.1\r\nHost: localhost\r\n"
            with contextlib.suppress(ConnectionError):
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            self._over.wait(0.2 * chance.random())
        self._count("hang_up")

    def _send(
        self, method: str, path: str, body: bytes | None = None, media_type: str = IMAGE_TYPE
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": media_type})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _judge(self, kind: str, status: int, text: bytes, got: object, wanted: object) -> None:
        if status in REFUSALS:
            self._count("refused")
            self._over.wait(REFUSED_SECONDS)
        elif status != 200:
            self._fault(f"{kind} was answered {status}: {text[:200]!r}")
        elif got != wanted:
            # The end says why a stream broke off.
            self._fault(f"{kind}: another's answer, or none: {text[:100]!r} ... {text[-300:]!r}")
        else:
            self._count(kind)

    def _count(self, what: str) -> None:
        with self._lock:
            self.ended[what] += 1

    def _fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)


def chat(model: str, name: str, body: bytes) -> bytes:
    """A chat that streams its answer."""
    url = f"data:image/png;base64,{base64.b64encode(body).decode()}"
    parts = [{"type": "text", "text": name}, {"type": "image_url", "image_url": {"url": url}}]
    return json.dumps(
        {"messages": [{"role": "user", "content": parts}], "model": model, "stream": True}
    ).encode()


def spoken(text: bytes) -> str:
    """The whole text of a stream that came to its end; empty where it did not."""
    words, finish = [], None
    for line in text.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:]).get("choices", []):
                words.append(choice["delta"].get("content", ""))
                finish = choice["finish_reason"] or finish
    return "".join(words) if finish == "stop" else ""


def answer_of(text: bytes, *way: str) -> tuple[str, str]:
    """The question and the digest in an answer; empty where there is none."""
    found: Any = json.loads(text)
    for name in way:
        found = found.get(name) or {}
    return found.get("question", ""), found.get("body_sha256", "")
