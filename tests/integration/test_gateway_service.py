# SPDX-License-Identifier: Apache-2.0
import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.config import ConfigurationError, load_configuration
from gpuwarden.control.snapshot import SnapshotWriter, read_snapshot
from gpuwarden.control.socket import ControlError, ask_async
from gpuwarden.control.states import GatewayData
from gpuwarden.gateway import service
from gpuwarden.gateway.peers import same_user
from gpuwarden.gateway.settings import GatewaySettings
from tests.integration.gateway_node import (
    DEADLINE_SECONDS,
    RecordingNotifier,
    gateway_node,
    job_place,
    read_reply,
)
from tests.integration.gateway_peer import GatewayPeer
from tests.integration.gateway_process import ROOT, RUN, predict, ready

# What systemd does: descriptors 3 and up, named, for this very process.
ACTIVATE = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = sys.argv.pop(1)
os.environ["LISTEN_FDNAMES"] = sys.argv.pop(1)
for number in range(int(os.environ["LISTEN_FDS"])):
    os.dup2(int(sys.argv.pop(1)), 3 + number, inheritable=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        yield Path(name)


async def test_it_serves_on_the_sockets_that_systemd_hands_over(folder: Path) -> None:
    http = socket.create_server(("127.0.0.1", 0))
    dispatch = service.bind_dispatch(folder / "dispatch.sock")
    descriptors = (dispatch.fileno(), http.fileno())
    process = await ready(
        folder,
        ACTIVATE + RUN,
        "2",
        "dispatch:http",
        *map(str, descriptors),
        "--state",
        str(folder / "state.json"),
        pass_fds=descriptors,
    )
    stranger = GatewayPeer(folder / "dispatch.sock")
    await asyncio.wait_for(stranger.closed.wait(), DEADLINE_SECONDS)
    reader, writer = await asyncio.open_connection("127.0.0.1", http.getsockname()[1])
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await read_reply(reader)).status == 503
    writer.close()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0
    assert "medgemma-worker@" in (folder / "log").read_text()
    assert read_snapshot(folder / "state.json", GatewayData).data.workers == []


async def test_a_scrape_that_comes_while_it_restarts_is_answered_by_the_next_life(
    folder: Path,
) -> None:
    http = socket.create_server(("127.0.0.1", 0))
    dispatch = service.bind_dispatch(folder / "dispatch.sock")
    descriptors = (dispatch.fileno(), http.fileno())
    handed = ("2", "dispatch:http", *map(str, descriptors), "--state", str(folder / "state.json"))
    first = await ready(folder, ACTIVATE + RUN, *handed, pass_fds=descriptors)
    first.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(first.wait(), DEADLINE_SECONDS) == 0
    reader, writer = await asyncio.open_connection("127.0.0.1", http.getsockname()[1])
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    (folder / "notify.sock").unlink()
    second = await ready(folder, ACTIVATE + RUN, *handed, pass_fds=descriptors)
    reply = await read_reply(reader)
    assert (reply.status, b"gpuwarden_gateway_queue_depth 0.0" in reply.body) == (200, True)
    writer.close()
    second.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(second.wait(), DEADLINE_SECONDS) == 0


async def test_by_hand_it_serves_where_it_is_told_and_stops_on_sigterm(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dispatch = str(folder / "dispatch.sock")
    state = str(folder / "state.json")
    arguments = ("--http", f"127.0.0.1:{port}", "--dispatch", dispatch, "--state", state)
    process = await ready(folder, RUN, *arguments)
    worker = GatewayPeer(folder / "dispatch.sock")
    worker.answers_by_itself = True
    await worker.become_ready()
    assert await predict(port) == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0
    await asyncio.wait_for(worker.closed.wait(), DEADLINE_SECONDS)


def test_the_process_is_undumpable() -> None:
    program = (
        "import ctypes\n"
        "from gpuwarden.gateway.service import make_undumpable\n"
        "dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"  # PR_GET_DUMPABLE
        "before = dumpable(); make_undumpable(); print(before, dumpable())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "1 0\n"


@pytest.mark.parametrize("missing", ["http", "dispatch"])
def test_a_missing_socket_is_named_with_its_unit(missing: str, folder: Path) -> None:
    http = socket.create_server(("127.0.0.1", 0))
    dispatch = service.bind_dispatch(folder / "dispatch.sock")
    name, handed = ("dispatch", dispatch) if missing == "http" else ("http", http)
    done = subprocess.run(
        [sys.executable, "-c", ACTIVATE + RUN, "1", name, str(handed.fileno())],
        pass_fds=[handed.fileno()],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1
    assert f"medgemma-{'gateway' if missing == 'http' else 'dispatch'}.socket" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(service.StartError, match=address):
            service.bind_http(address)
    with pytest.raises(service.StartError, match="nowhere"):
        service.bind_dispatch(folder / "nowhere" / "dispatch.sock")


async def test_a_reload_changes_the_limits_and_a_wrong_file_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    file = folder / "gpuwarden.toml"
    monkeypatch.setattr(
        service, "effective_configuration", lambda: load_configuration(file, folder / "conf.d")
    )
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.bind(str(folder / "control.sock"))
    control.listen()
    async with gateway_node(control=[control]) as node:
        file.write_text("[gateway]\nqueue_limit = 7\nbody_limit_bytes = 2097152\n")
        answer = await ask_async(folder / "control.sock", {"request": "reload"}, 5)
        assert answer["applied"] == ["gateway"]
        await node.worker()
        assert (await node.post(bytes(2097153))).status == 413
        await node.until(lambda: node.snapshot().queue_limit == 7)
        file.write_text("[gateway]\nqueue_limmit = 8\n")
        with pytest.raises(ConfigurationError):
            load_configuration(file, folder / "conf.d")
        with pytest.raises(ControlError, match="queue_limmit"):
            await ask_async(folder / "control.sock", {"request": "reload"}, 5)
        assert node.service.dispatcher.settings.queue_limit == 7
        assert (await node.post(b"goes on")).status == 200


async def test_what_fails_outside_of_requests_is_named_without_its_text(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: str) -> None:
        raise ValueError(words)

    async def fail_later() -> None:
        fail("DOE^JANE")

    monkeypatch.setattr(service, "spare_collector", lambda: None)  # it is this process's, too
    http, dispatch = socket.create_server(("127.0.0.1", 0)), folder / "dispatch.sock"
    notifier = RecordingNotifier()
    serving = asyncio.create_task(
        service.serve(
            GatewaySettings(),
            service.Sockets([http], service.bind_dispatch(dispatch), same_user),
            SnapshotWriter(folder / "state.json", "gateway"),
            notifier,
            lambda card: folder / f"{card}.json",
            job_place(folder / "jobs"),
        )
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        while "ready" not in notifier.calls:  # noqa: ASYNC110 - it is only told
            await asyncio.sleep(0.002)
    asyncio.get_running_loop().call_soon(fail, "DOE^JANE")
    await asyncio.wait([asyncio.create_task(fail_later())])
    gc.collect()  # nobody has asked what became of it
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, DEADLINE_SECONDS)
    assert caplog.text.count("ValueError at test_gateway_service.py") == 2
    assert "DOE" not in caplog.text
