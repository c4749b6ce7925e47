# SPDX-License-Identifier: Apache-2.0
"""A caller of the job service in the node itself, with the standard library alone.

    python3 jobs_in_node.py submit [MARKS]    submits until it is killed, tells each id on a line
    python3 jobs_in_node.py check             reads such lines, tells what is wrong as JSON

Each image is of its own, and its answer names its pixels: an answer that is another's shows. With
MARKS, a folder on the disk of the jobs, each job that was accepted leaves a synced file there, so
that what a caller had been told is on record at every crash of that disk.
"""

import hashlib
import http.client
import json
import os
import pathlib
import socket
import struct
import sys
import time
import zlib
from typing import Any

SOCKET = "/run/gpuwarden/http.sock"
SIDE = 16
WAIT_SECONDS = 60
DEADLINE_SECONDS = 600.0


class Local(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_SECONDS + 30)
        self.sock.connect(SOCKET)


def png(pixels: bytes) -> bytes:
    """A grey picture of these pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + pixels[row : row + SIDE] for row in range(0, len(pixels), SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def ask(method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """One request; again while the service is away."""
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        connection = Local("localhost")
        try:
            connection.request(method, path, body, {"Content-Type": "image/png"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 503:
                return response.status, answer
        except (OSError, http.client.HTTPException):
            if time.monotonic() > end:
                raise
        finally:
            connection.close()
        time.sleep(0.2)


def submit(marks: str) -> None:
    while True:
        pixels = os.urandom(SIDE * SIDE)
        status, answer = ask("POST", "/v1/jobs?question=stats", png(pixels))
        if status != 202:
            raise SystemExit(f"{status}: {answer}")
        if marks:
            with pathlib.Path(marks, f"mark-{answer['id']}").open("w") as mark:
                os.fsync(mark.fileno())
            folder = os.open(marks, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        print(answer["id"], hashlib.sha256(pixels).hexdigest(), flush=True)


def check() -> None:
    repeats, faults = 0, []
    for line in sys.stdin:
        identifier, wanted = line.split()
        status, job = ask("GET", f"/v1/jobs/{identifier}?wait={WAIT_SECONDS}")
        while status == 200 and not job["progress"]["is_finished"]:
            status, job = ask("GET", f"/v1/jobs/{identifier}?wait={WAIT_SECONDS}")
        if status != 200 or job["status"] != "succeeded":
            faults.append(f"{identifier}: {job}")
        elif job["result"]["answer"]["pixels_sha256"] != wanted:
            faults.append(f"{identifier} has another's answer")
        else:
            repeats += job["executions"] > 1
    print(json.dumps({"repeats": repeats, "faults": faults}))


if __name__ == "__main__":
    if sys.argv[1] == "submit":
        submit(sys.argv[2] if len(sys.argv) > 2 else "")
    else:
        check()
