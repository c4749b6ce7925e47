# SPDX-License-Identifier: Apache-2.0
import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.control.states import GatewayData, GatewayWorker
from gpuwarden.gateway import peers
from gpuwarden.gateway.access import host_name
from gpuwarden.gateway.errors import STATUS, WORKER_ERRORS, ApiError
from gpuwarden.gateway.lazyheap import SLACK, LazyHeap
from gpuwarden.gateway.messages import Hello, MessageError, parse
from gpuwarden.gateway.publish import status_text
from gpuwarden.gateway.statistics import Statistics
from gpuwarden.names import gpu_slice

WORKERS = "/medgemma.slice/medgemma-workers.slice"


@pytest.mark.parametrize(
    ("cgroup", "number", "card"),
    [
        (f"0::{WORKERS}/medgemma-worker@0.service\n", 0, None),
        (f"0::{WORKERS}/medgemma-workers-gpu1.slice/medgemma-worker@12.service/child\n", 12, 1),
        (f"0::{WORKERS}/medgemma-workers-gpu10b.slice/medgemma-worker@2.service\n", 2, 10),
        ("0::/medgemma-worker@3.service/medgemma-workers-gpu1.slice/x\n", 3, None),
        ("1:name=systemd:/medgemma-worker@3.service\n0::/user.slice\n", None, None),
        ("0::/user.slice/medgemma-worker@3.service.d\n", None, None),
        ("0::/user.slice/medgemma-worker@03.service\n", None, None),
        ("0::/user.slice/not-medgemma-worker@3.service\n", None, None),
        ("0::/system.slice/medgemma-gateway.service\n", None, None),
        ("", None, None),
    ],
)
def test_a_worker_and_its_card_are_known_by_its_cgroup(
    cgroup: str, number: int | None, card: int | None
) -> None:
    unit = peers.unit_of(cgroup)
    assert (unit and unit.number, unit and unit.card) == (number, card)


def test_a_card_s_slice_is_known_whatever_plan_it_is_of() -> None:
    for variant in ("", "b"):
        match = peers.CARD_SLICE.search(f"/{gpu_slice(7, variant)}/")
        assert match and match["card"] == "7"


def unit_with(root: Path, processes: list[int], below: list[int]) -> None:
    """Processes of this machine in the cgroups of worker 3, on card 1."""
    group = f"{WORKERS[1:]}/{gpu_slice(1)}/medgemma-worker@3.service"
    for name, pids in (("", processes), ("helpers", below)):
        folder = root / peers.CGROUPS / group / name
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    for pid in (*processes, *below):
        process = root / f"proc/{pid}"
        process.mkdir(parents=True)
        process.joinpath("stat").symlink_to(f"/proc/{pid}/stat")
        process.joinpath("cgroup").write_text(f"0::/{group}\n")


def test_the_main_process_of_a_unit_is_its_worker(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper = subprocess.Popen(["/bin/sleep", "60"])
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    with ours, theirs:
        unit_with(tmp_path, [helper.pid, ended.pid, os.getpid()], [])
        peer = peers.worker_of_unit(ours, tmp_path)
    helper.kill()
    helper.wait()
    assert (peer.number, peer.card, peer.pid) == (3, 1, os.getpid())


@pytest.mark.parametrize("is_below", [False, True])
def test_what_a_worker_has_begun_is_no_worker(tmp_path: Path, is_below: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    older = [1]
    with ours, theirs, pytest.raises(peers.UnknownPeerError, match="not the main process"):
        unit_with(tmp_path, [os.getpid(), *([] if is_below else older)], older * is_below)
        peers.worker_of_unit(ours, tmp_path)


def test_a_peer_outside_the_workers_units_is_unknown() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, pytest.raises(peers.UnknownPeerError, match="medgemma-worker@"):
        peers.worker_of_unit(ours)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost:7860", "localhost"),
        ("LOCALHOST", "localhost"),
        ("[::1]:7860", "[::1]"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1].evil.example", "[::1].evil.example"),
        ("[::1]", "[::1]"),
        ("[0:0:0:0:0:0:0:1]:7860", "[::1]"),
        ("[FD00::0007]", "[fd00::7]"),
        ("[evil.example]:7860", "[evil.example]"),
        ("localhost:7860@evil.example", "localhost:7860@evil.example"),
        ("localhost.evil.example:1", "localhost.evil.example"),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    assert host_name(host) == name


def test_every_error_of_a_worker_has_a_status() -> None:
    assert set(WORKER_ERRORS.values()) <= STATUS.keys()
    with pytest.raises(KeyError):
        ApiError("not in the table", "")


def test_a_wrong_message_is_described_without_its_content() -> None:
    with pytest.raises(MessageError) as wrong:
        parse(Hello, {"protocol": "DOE^JOHN", "number": -1})
    assert "protocol" in str(wrong.value)
    assert "DOE" not in str(wrong.value)


def test_the_time_to_come_back_follows_the_measured_service_time() -> None:
    statistics = Statistics()
    assert statistics.retry_after_seconds(10, 4, 30) == 3  # nothing measured yet: 1 s each
    statistics.complete(9.0, 4.0)
    assert statistics.retry_after_seconds(10, 4, 30) == 10
    assert statistics.retry_after_seconds(1000, 4, 30) == 30
    assert statistics.retry_after_seconds(0, 0, 30) == 1


def test_mean_and_percentile_are_of_the_last_responses() -> None:
    statistics = Statistics()
    assert statistics.mean_response_seconds is None
    assert statistics.p95_response_seconds is None
    for hundredths in range(1, 101):
        statistics.complete(hundredths / 100, 0.1)
    assert statistics.mean_response_seconds == pytest.approx(0.505)
    assert statistics.p95_response_seconds == 0.95


def test_the_status_line_is_for_humans() -> None:
    workers = [
        GatewayWorker(number=0, pid=1, state="ready", outstanding=0, requests=0, failures=0),
        GatewayWorker(number=1, pid=2, state="busy", outstanding=1, requests=0, failures=0),
        GatewayWorker(number=2, pid=3, state="loading", outstanding=0, requests=0, failures=0),
    ]
    data = GatewayData(
        queue_depth=3,
        queue_limit=100,
        workers_active=2,
        accepted=0,
        completed=0,
        failed=0,
        rejected=0,
        retried=0,
        mean_response_seconds=None,
        p95_response_seconds=None,
        workers=workers,
    )
    assert status_text(data) == "2 workers ready, 1 not, 3 waiting"


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=400))
def test_a_lazy_heap_gives_the_living_in_order_and_buries_the_dead(
    entries: list[tuple[int, bool]],
) -> None:
    dead: set[int] = set()
    heap = LazyHeap[int](lambda item: item not in dead)
    for number, (key, dies) in enumerate(entries):
        heap.push(key, number)
        if dies:
            dead.add(number)
        living = number + 1 - len(dead)
        assert len(heap) <= 2 * living + 2 * SLACK + 2
    order = []
    while heap.first() is not None:
        order.append(heap.pop())
    assert order == sorted(
        (number for number in range(len(entries)) if number not in dead),
        key=lambda number: (entries[number][0], number),
    )
    with pytest.raises(IndexError):
        heap.pop()
