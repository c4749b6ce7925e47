# SPDX-License-Identifier: Apache-2.0
"""Nothing of a request is told: not in a log, not in a metric, not in a state, not in a file name.

A front door and a worker as processes, with all that they log, and a marker in every place that a
request has.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.gateway_node import Reply, read_reply
from tests.integration.gateway_process import ready
from tests.integration.worker_peer import close_node, make_node

RUN_TELLING_ALL = """
import sys
from gpuwarden.config.models import Configuration, LogSettings
from gpuwarden.gateway import service
service.effective_configuration = lambda: Configuration(log=LogSettings(level="debug"))
sys.exit(service.main(sys.argv[1:]))
"""
MARKER = "DOE-JOHN-19610203"
SECRET = MARKER.encode()
FORM = "multipart/form-data; boundary=b"
JSON = "application/json"


def form(*lines: str) -> bytes:
    return "\r\n".join(lines).encode()


def part(name: str, content: str = MARKER, file: str = "") -> list[str]:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    return ["--b", disposition + (f'; filename="{file}"' if file else ""), "", content]


def chat(**changes: object) -> bytes:
    messages = [{"role": "user", "content": MARKER}]
    return json.dumps({"model": "test-model", "messages": messages, **changes}).encode()


FILE = part("image", file=f"{MARKER}.png")
# method, path, media type, further headers, body
REQUESTS: list[tuple[str, str, str, str, bytes]] = [
    ("POST", f"/predict?question={MARKER}", "image/png", "", SECRET),
    ("POST", f"/predict?question={MARKER}", "image/jpeg", "", SECRET),
    ("POST", f"/predict?question={MARKER}", "application/dicom", "", SECRET),
    ("POST", "/predict", "image/png", f"X-Question: {MARKER}\r\nX-Note: {MARKER}\r\n", SECRET),
    ("POST", "/predict", FORM, "", form(*FILE, *part("question"), "--b--")),
    ("POST", "/predict", FORM, "", form(*FILE, *part(MARKER), "--b--")),
    ("POST", "/predict", FORM, "", form(*FILE, *part("question"))),
    ("POST", "/predict", f"{MARKER}/x", "", SECRET),
    ("POST", "/predict", "image/png", f"Idempotency-Key: {MARKER}\r\n", SECRET),
    ("POST", f"/predict?{MARKER}=1", "image/png", "", SECRET),
    ("POST", f"/predict?image={MARKER}", "image/png", "", b""),
    ("POST", "/v1/images", FORM, "", form(*FILE, "--b--")),
    ("POST", "/v1/jobs", FORM, f"Idempotency-Key: {MARKER}-1\r\n", form(*FILE, "--b--")),
    ("POST", f"/v1/jobs?question={MARKER}", "image/png", "", SECRET),
    ("POST", "/v1/chat/completions", JSON, "", chat()),
    ("POST", "/v1/chat/completions", JSON, "", chat(stream=True)),
    ("POST", "/v1/chat/completions", JSON, "", chat(model=MARKER)),
    ("POST", "/v1/chat/completions", JSON, f"X-Gpuwarden-Model: {MARKER}\r\n", chat()),
    ("POST", "/v1/chat/completions", JSON, "", chat(**{MARKER: 1})),
    ("POST", "/v1/chat/completions", JSON, "", chat(stop=[MARKER] * 9)),
    ("POST", "/v1/chat/completions", JSON, "", SECRET),
    ("GET", f"/{MARKER}", JSON, "", b""),
    ("GET", f"/v1/jobs/{MARKER}", JSON, "", b""),
    ("DELETE", f"/v1/images/{MARKER}", JSON, "", b""),
    ("GET", f"/v1/jobs?after={MARKER}", JSON, f"Authorization: Bearer {MARKER}\r\n", b""),
    ("POST", f"/api/thermal_mode?mode={MARKER}", JSON, "", SECRET),
    ("POST", "/predict", "image/png", f"Origin: http://{MARKER}\r\n", SECRET),
    ("POST", "/predict", "image/png", f"X-Forwarded-For: {MARKER}\r\n", SECRET),
    ("POST", "/predict", "image/png", f" {MARKER}: y\r\n", SECRET),
    (MARKER, f"/{MARKER}", MARKER, "", SECRET),
]


async def ask(port: int, request: tuple[str, str, str, str, bytes]) -> Reply:
    method, path, media_type, headers, body = request
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}"
        f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    writer.write(body)
    try:
        return await read_reply(reader)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def front_door(folder: Path) -> AsyncIterator[int]:
    """A front door process that tells everything, with a worker process that does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = make_node()
    dispatch = home.folder / "door.sock"
    places = ["--dispatch", str(dispatch), "--state", str(folder / "state.json")]
    places += ["--jobs", str(folder / "jobs"), "--http", f"127.0.0.1:{port}"]
    (folder / "jobs").mkdir()
    (folder / "credentials").mkdir()
    (folder / "credentials" / "gpuwarden-jobs-key").write_bytes(bytes(32))
    (folder / "credentials" / "gpuwarden-api-key").write_text("k" * 32)
    told = {"CREDENTIALS_DIRECTORY": str(folder / "credentials")}
    process = await ready(folder, RUN_TELLING_ALL, *places, environment=told)
    try:
        engine, socket_path = "model_classes:Quoting", str(dispatch)
        async with home.worker(dispatch_socket=socket_path, engine=engine) as worker:
            await home.told_systemd("READY")
            yield port
            (folder / "worker-log").write_text(worker.log())
    finally:
        process.terminate()
        await process.wait()
        close_node(home)


def written_in(folder: Path) -> dict[str, bytes]:
    """All files, by name."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


async def test_no_marker_of_any_request_is_told_anywhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with front_door(tmp_path) as port:
        replies = [await ask(port, request) for request in REQUESTS]
        jobs = [reply.json["id"] for reply in replies if reply.status == 202]
        waits = [("GET", f"/v1/jobs/{job}?wait=10", JSON, "", b"") for job in jobs]
        answers = [await ask(port, wait) for wait in waits]
        metrics = await ask(port, ("GET", "/metrics", JSON, "", b""))
    assert {reply.status for reply in replies} >= {200, 201, 202, 400, 401, 403, 404, 415, 500}
    assert len(answers) == 2
    assert all(SECRET in reply.body for reply in answers), "the markers did arrive"
    logs = written_in(tmp_path)
    assert b"connected" in logs["worker-log"]
    assert logs["log"]
    assert any(name.startswith("jobs/") for name in logs)
    told = {name for name, content in logs.items() if SECRET in content or MARKER in name}
    assert told == set()
    assert SECRET not in metrics.body
    assert MARKER not in "".join(capfd.readouterr())
