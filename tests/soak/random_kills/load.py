# SPDX-License-Identifier: Apache-2.0
"""Steady requests through the front door, and what becomes of each.

No accepted request is lost. What that means depends on who dies, for a request waits in the memory
of the gateway, and its caller at the other end of a connection:

- **Anybody but the gateway** (a worker with the request in it, a process that decodes it, the
  guard, a thermal guard, the bus, systemd): the caller notices nothing. Each request that was sent
  gets its own answer, told by question and image, or was refused at the door, before it was
  accepted, with the time to come back. No connection breaks, no other status comes, nothing hangs.
- **The gateway**: what it had accepted dies with it, and says so: the connection ends at once, so
  that the caller asks again and gets the answer. A connection may end without an answer only while
  a gateway dies. One that the dead gateway had not taken yet waits in the listening socket, which
  is systemd's, for the next: no connection is ever refused.

Jobs that outlive a gateway are durable jobs, another matter.
"""

import hashlib
import http.client
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

PORT = 7860
PAUSE_SECONDS = 0.5
# Some ride inside a frame, others in a buffer of shared memory.
BODY_BYTES = (2_000, 30_000, 200_000, 1_500_000)
REFUSED_SECONDS = 1.0  # less than Retry-After asks for: this caller is in a hurry
HANG_SECONDS = 330.0  # more than request_timeout_seconds of the campaign
REFUSALS = {429: ("queue_full",), 503: ("unavailable", "too_hot")}


@dataclass(frozen=True)
class Image:
    """What the engine gets: it answers with the digest."""

    body: bytes
    digest: str


@dataclass(frozen=True)
class Question:
    """What is asked; nobody else asks the same."""

    image: Image
    text: str


@dataclass
class Counts:
    """What became of the requests.

    :ivar asked_again: connections that ended while a gateway died.
    :ivar lost: what must not be, in words.
    """

    asked: int = 0
    answered: int = 0
    refused: int = 0
    asked_again: int = 0
    slowest_seconds: float = 0.0
    lost: list[str] = field(default_factory=list)


class FrontDoor:
    """Whether a gateway dies at the moment, and how many have.

    ``deaths`` is odd while one dies: a connection may end in that time, or across it.
    """

    def __init__(self) -> None:
        self.deaths = 0

    @contextmanager
    def dying(self) -> Iterator[None]:
        """While the gateway is being killed, until it is gone."""
        self.deaths += 1
        try:
            yield
        finally:
            self.deaths += 1

    def excuses(self, deaths_before: int) -> bool:
        """Whether a connection that was opened then may have ended."""
        return deaths_before % 2 == 1 or self.deaths != deaths_before


class Load:
    """Clients that ask until told to stop."""

    def __init__(self, clients: int, seed: int) -> None:
        bodies = [random.Random(f"{seed} {size}").randbytes(size) for size in BODY_BYTES]
        self._images = [Image(body, hashlib.sha256(body).hexdigest()) for body in bodies]
        self.front_door = FrontDoor()
        self._counts = Counts()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._in_flight = 0
        self._turns = [threading.Lock() for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number, random.Random(f"{seed} {number}")))
            for number in range(clients)
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until each client has the answer to its last question."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Between questions: each client has the answer to its last and asks nothing."""
        with ExitStack() as stack:
            for turn in self._turns:
                stack.enter_context(turn)
            yield

    @property
    def in_flight(self) -> int:
        """Requests that wait for an answer now."""
        return self._in_flight

    def counts(self) -> dict[str, Any]:
        """What became of the requests so far."""
        with self._lock:
            return asdict(self._counts)

    def _ask_on(self, client: int, chance: random.Random) -> None:
        number = 0
        while not self._ended.wait(PAUSE_SECONDS):
            number += 1
            question = Question(chance.choice(self._images), f"question {number} of {client}")
            with self._turns[client]:
                self._ask_until_answered(question)

    def _ask_until_answered(self, question: Question) -> None:
        began = time.monotonic()
        while not self._ask(question):
            if time.monotonic() - began > HANG_SECONDS:
                self._count(lost=f"no answer in {HANG_SECONDS:g} s, however often it was asked")
                break
        with self._lock:
            slowest = max(self._counts.slowest_seconds, time.monotonic() - began)
            self._counts.slowest_seconds = slowest

    def _ask(self, question: Question) -> bool:
        """Ask once. True where there is nothing more to ask: it is answered, or lost."""
        deaths = self.front_door.deaths
        with self._lock:
            self._counts.asked += 1
            self._in_flight += 1
        try:
            status, headers, body = post(question)
        except (OSError, http.client.HTTPException) as error:
            if self.front_door.excuses(deaths) and not isinstance(error, TimeoutError):
                self._count(asked_again=1)
                return False
            self._count(lost=f"the connection ended ({error!r}) although no gateway died")
            return True
        finally:
            with self._lock:
                self._in_flight -= 1
        return self.judge(question, status, headers, body)

    def judge(
        self, question: Question, status: int, headers: http.client.HTTPMessage, body: bytes
    ) -> bool:
        """Count an answer. True where there is nothing more to ask."""
        document = json.loads(body)
        if status == 200:
            answer = document["answer"]
            own = (answer["question"], answer["body_sha256"]) == (
                question.text,
                question.image.digest,
            )
            self._count(answered=1, lost="" if own else "somebody else's answer came")
            return True
        if document["error"]["type"] in REFUSALS.get(status, ()) and "Retry-After" in headers:
            self._count(refused=1)
            self._ended.wait(REFUSED_SECONDS)
            return False
        self._count(lost=f"it was answered {status}: {document['error']}")
        return True

    def _count(
        self, answered: int = 0, refused: int = 0, asked_again: int = 0, lost: str = ""
    ) -> None:
        with self._lock:
            self._counts.answered += answered
            self._counts.refused += refused
            self._counts.asked_again += asked_again
            if lost:
                self._counts.lost.append(lost)


def post(question: Question) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=HANG_SECONDS)
    try:
        path = f"/predict?question={quote(question.text)}"
        headers = {"Content-Type": "application/octet-stream"}
        connection.request("POST", path, question.image.body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()
