# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.dataplane.load SPEC``: clients that ask again once answered.

A process of its own, the same for every system. It says ``ready``, starts on a line of input, and
prints what it saw as JSON. Each answer is checked, so that nobody is fast by being wrong.
"""

import http.client
import json
import random
import select
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.dataplane.served.work import IMAGE_LEAST_BYTES, answer

TIMEOUT_SECONDS = 60.0
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Load:
    """What to ask for, and for how long.

    :ivar body_bytes: of an image from 1 MiB on, of JSON below.
    """

    port: int
    path: str
    headers: dict[str, str]
    body_bytes: int
    clients: int
    seconds: float


@dataclass
class Seen:
    """What came of it; times in seconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0


def body_of(size: int) -> bytes:
    """An image of noise, or a JSON object of that size."""
    if size >= IMAGE_LEAST_BYTES:
        return random.Random(size).randbytes(size)
    shell = len(json.dumps({"text": ""}))
    return json.dumps({"text": "x" * (size - shell)}).encode()


def request_of(load: Load, body: bytes) -> bytes:
    """The whole request."""
    headers = {
        "Host": "localhost",
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(body)),
        **load.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {load.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def is_right(content: bytes, expected: Any) -> bool:
    """Whether an answer's JSON holds what was asked for; ours has it one level further down."""
    document = json.loads(content)
    return bool(document.get("answer", document) == expected)


def connect(load: Load) -> socket.socket:
    """A new connection."""
    connection = socket.create_connection(("127.0.0.1", load.port), TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask_one_by_one(load: Load, seen: Seen, begin: threading.Barrier) -> None:
    """One client with big bodies: it waits for its answer, and connects again where it must."""
    body = body_of(load.body_bytes)
    request, expected = request_of(load, body), answer(body)
    connection: socket.socket | None = connect(load)
    begin.wait()
    end = time.monotonic() + load.seconds
    while (started := time.monotonic()) < end:
        connection = connection or connect(load)
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        content = response.read()
        seen.latencies.append(time.monotonic() - started)
        seen.wrong += response.status != 200 or not is_right(content, expected)
        if response.will_close:
            connection.close()
            connection = None


def ask_in_threads(load: Load) -> Seen:
    """A thread a client: it waits in the kernel nearly all the time."""
    seen, begin = Seen(), threading.Barrier(load.clients + 1, action=wait_for_word)
    threads = [
        threading.Thread(target=ask_one_by_one, args=(load, seen, begin))
        for _ in range(load.clients)
    ]
    for thread in threads:
        thread.start()
    begin.wait()
    started = time.monotonic()
    for thread in threads:
        thread.join()
    seen.seconds = time.monotonic() - started
    return seen


def ask_in_one_loop(load: Load) -> Seen:
    """All clients of small requests in one loop, as cheap as Python can be."""
    body = body_of(load.body_bytes)
    request, expected, seen = request_of(load, body), answer(body), Seen()
    poll = select.epoll()
    connections = {one.fileno(): one for one in (connect(load) for _ in range(load.clients))}
    for number in connections:
        poll.register(number, select.EPOLLIN)
    wait_for_word()
    begun = time.monotonic()
    started = dict.fromkeys(connections, begun)
    answers: dict[int, bytes] = dict.fromkeys(connections, b"")
    checked: set[bytes] = set()
    for connection in connections.values():
        connection.sendall(request)
    while (now := time.monotonic()) < begun + load.seconds:
        for number, _ in poll.poll(1.0):
            connection = connections[number]
            received = answers[number] + connection.recv(READ_BYTES)
            content = content_of(received)
            if content is None:
                answers[number] = received
                continue
            now = time.monotonic()
            seen.latencies.append(now - started[number])
            if not received.startswith(b"HTTP/1.1 200") or not seems_right(
                content, expected, checked
            ):
                seen.wrong += 1
            started[number], answers[number] = now, b""
            connection.sendall(request)
    seen.seconds = now - begun
    return seen


def seems_right(content: bytes, expected: Any, checked: set[bytes]) -> bool:
    """The check without its cost: parsed once for each beginning of an answer that differs."""
    head = content[:64]
    if head not in checked:
        if not is_right(content, expected):
            return False
        checked.add(head)
    return True


def content_of(received: bytes) -> bytes | None:
    """The answer's content, once it is complete. Raises ConnectionError where none will be."""
    if not received:
        raise ConnectionError("the system hung up")
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = received[:head_end].lower()
    start = head.index(b"content-length:") + 15
    line_end = head.find(b"\r\n", start)
    length = int(head[start : line_end if line_end > 0 else head_end])
    content = received[head_end + 4 :]
    return content if len(content) >= length else None


def wait_for_word() -> None:
    """Begin together with whoever else is to begin."""
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    wanted = Load(**json.loads(sys.argv[1]))
    run = ask_in_threads if wanted.body_bytes >= IMAGE_LEAST_BYTES else ask_in_one_loop
    json.dump(asdict(run(wanted)), sys.stdout)
