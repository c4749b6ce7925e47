# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.control import socket as control
from gpuwarden.control.socket import ControlError, ControlServer, ControlUnreachableError
from tests.open_files import descriptors_used_up

Connect = Callable[[], Awaitable[socket.socket]]
DEADLINE_SECONDS = 20.0  # far more than anything here takes, on a busy machine too


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def finish() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def server(path: Path, finish: asyncio.Event) -> AsyncIterator[ControlServer]:
    async def slow(request: dict[str, Any]) -> dict[str, Any]:
        await finish.wait()
        return {"after": "waiting"}

    def refuse(request: dict[str, Any]) -> dict[str, Any]:
        raise ControlError("Busy", "a reload is under way")

    def crash(request: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("x")

    handlers: dict[str, control.Handler] = {
        "echo": lambda request: request,
        "slow": slow,
        "refuse": refuse,
        "crash": crash,
        "flood": lambda request: {"text": "x" * control.RECORD_LIMIT_BYTES},
    }
    server = await control.serve(path, handlers, allowed_uids={os.getuid()})
    yield server
    await server.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def exchange(path: Path, record: bytes) -> dict[str, Any]:
    """Send a raw record, get the answer's document."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, str(path))
        await loop.sock_sendall(connection, record)
        async with asyncio.timeout(DEADLINE_SECONDS):
            answer = await loop.sock_recv(connection, 2 * control.RECORD_LIMIT_BYTES)
    document: dict[str, Any] = json.loads(answer)
    return document


async def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    return await control.ask_async(path, request, DEADLINE_SECONDS)


async def test_a_request_is_answered(path: Path, server: ControlServer) -> None:
    answer = await ask(path, {"request": "echo", "text": "ä"})
    assert answer == {"version": 1, "request": "echo", "text": "ä"}


async def test_a_blocking_client_in_another_thread_is_answered(
    path: Path, server: ControlServer
) -> None:
    request = {"request": "echo"}
    answer = await asyncio.to_thread(control.ask, path, request, DEADLINE_SECONDS)
    assert answer == {"version": 1, "request": "echo"}


async def test_others_are_answered_while_one_request_takes_its_time(
    path: Path, server: ControlServer, finish: asyncio.Event
) -> None:
    slow = asyncio.create_task(ask(path, {"request": "slow"}))
    assert (await ask(path, {"request": "echo"}))["request"] == "echo"
    assert not slow.done()
    finish.set()
    assert await slow == {"after": "waiting"}


@pytest.mark.parametrize(
    ("request_name", "kind", "message"),
    [
        ("refuse", "Busy", "a reload is under way"),
        ("crash", "Failed", "KeyError: 'x'"),
        ("flood", "Failed", "a record of"),
        ("nonsense", "InvalidArgument", "known: crash, echo, flood, refuse, slow"),
        (["echo"], "InvalidArgument", "unknown request"),
        (None, "InvalidArgument", "unknown request None"),
    ],
)
async def test_a_refusal_arrives_as_an_error_with_its_kind(
    path: Path, server: ControlServer, request_name: object, kind: str, message: str
) -> None:
    with pytest.raises(ControlError, match=message) as caught:
        await ask(path, {"request": request_name})
    assert caught.value.kind == kind
    assert (await ask(path, {"request": "echo"}))["version"] == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"nonsense", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 50000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "protocol version None"),
        (b'{"version": 2, "request": "echo"}', "protocol version 2, where 1 is spoken"),
        (b" " * (control.RECORD_LIMIT_BYTES + 1), "more than 65536 bytes"),
    ],
)
async def test_a_broken_record_is_answered_with_what_is_wrong(
    path: Path, server: ControlServer, record: bytes, message: str
) -> None:
    document = await exchange(path, record)
    assert document["version"] == 1
    assert document["error"]["type"] == "InvalidArgument"
    assert message in document["error"]["message"]


async def test_a_request_over_the_limit_is_not_even_sent(path: Path) -> None:
    with pytest.raises(ControlError, match="over 65536"):
        await ask(path, {"request": "x" * control.RECORD_LIMIT_BYTES})


async def test_other_users_are_refused_by_the_kernels_word(path: Path) -> None:
    ran = []

    def act(request: dict[str, Any]) -> dict[str, Any]:
        ran.append(request)
        return {}

    server = await control.serve(path, {"act": act}, allowed_uids={os.getuid() + 1})
    with pytest.raises(ControlError, match=f"user {os.getuid()} may not ask here") as caught:
        await ask(path, {"request": "act"})
    assert caught.value.kind == "AccessDenied"
    assert ran == []
    await server.close()


async def test_a_silent_client_is_cut_off_and_hinders_nobody(
    path: Path, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REQUEST_TIMEOUT_SECONDS", 1.0)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.setblocking(False)
        await loop.sock_connect(silent, str(path))
        assert (await ask(path, {"request": "echo"}))["version"] == 1
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await loop.sock_recv(silent, 1) == b""


async def test_a_client_that_leaves_does_not_stop_what_it_asked_for(
    path: Path, server: ControlServer, finish: asyncio.Event
) -> None:
    with pytest.raises(ControlUnreachableError, match="no answer within"):
        await control.ask_async(path, {"request": "slow"}, timeout_seconds=0.1)
    finish.set()
    assert (await ask(path, {"request": "echo"}))["version"] == 1


async def test_what_a_client_asked_that_left_before_it_was_read_is_not_done(path: Path) -> None:
    # As with a daemon that was restarting: systemd's socket takes the request meanwhile.
    done: list[control.Document] = []

    def act(request: control.Document) -> control.Document:
        done.append(request)
        return {}

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(ControlUnreachableError, match="no answer within"):
            await control.ask_async(path, {"request": "act"}, timeout_seconds=0.05)
        server = await control.serve(listening, {"act": act}, {os.getuid()})
        await ask(path, {"request": "act", "mark": "second"})
        await server.close()
    assert [request.get("mark") for request in done] == ["second"]


async def test_too_many_at_once_are_told_so(
    path: Path, server: ControlServer, finish: asyncio.Event
) -> None:
    waiting = [
        asyncio.create_task(ask(path, {"request": "slow"})) for _ in range(control.CLIENTS_LIMIT)
    ]
    refused: ControlError | None = None
    async with asyncio.timeout(DEADLINE_SECONDS):
        while refused is None:  # until all of them have arrived
            try:
                await ask(path, {"request": "echo"})
            except ControlError as error:
                refused = error
    assert refused.kind == "Busy"
    finish.set()
    assert await asyncio.gather(*waiting) == [{"after": "waiting"}] * control.CLIENTS_LIMIT


async def test_nobody_there_is_said_with_the_path(path: Path) -> None:
    with pytest.raises(ControlUnreachableError, match=r"control\.sock: No such file"):
        await ask(path, {"request": "echo"})
    server = await control.serve(path, {})
    await server.close()
    with pytest.raises(ControlUnreachableError, match="Connection refused"):
        await ask(path, {"request": "echo"})


async def test_closing_hangs_up_on_those_who_wait(path: Path, server: ControlServer) -> None:
    waiting = asyncio.create_task(ask(path, {"request": "slow"}))
    await ask(path, {"request": "echo"})
    await server.close()
    with pytest.raises(ControlUnreachableError, match=r"hung up|reset|refused"):
        await waiting


async def test_the_socket_is_for_its_owner_alone_and_a_dead_one_is_replaced(path: Path) -> None:
    first = await control.serve(path, {})
    assert mode_of(path) == 0o600
    with pytest.raises(OSError, match="another process answers there already"):
        await control.serve(path, {})
    await first.close()
    second = await control.serve(path, {"a": lambda request: {}}, allowed_uids={os.getuid()})
    assert await ask(path, {"request": "a"}) == {}
    await second.close()


async def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    precious = path.with_name("precious")
    precious.mkdir()
    with pytest.raises(FileExistsError, match="no socket"):
        await control.serve(precious, {})
    assert precious.is_dir()


async def test_a_socket_handed_over_by_systemd_is_served(path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(path))
    listening.listen()
    server = await control.serve(listening, {"a": lambda r: {"b": 1}}, allowed_uids={os.getuid()})
    assert await ask(path, {"request": "a"}) == {"b": 1}
    await server.close()


async def test_who_has_no_descriptor_left_hears_that_nobody_could_be_asked(
    server: ControlServer, path: Path
) -> None:
    with descriptors_used_up(), pytest.raises(ControlUnreachableError, match="Too many open files"):
        await ask(path, {"request": "echo"})
    assert (await ask(path, {"request": "echo"}))["request"] == "echo"
