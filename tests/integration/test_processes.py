# SPDX-License-Identifier: Apache-2.0
"""Real processes and their end by pidfd: TERM, then KILL, and never anybody else."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gpuwarden.guard import processes
from gpuwarden.guard.processes import (
    Identity,
    end_process,
    in_initial_namespace,
    is_alive,
    read_process,
)
from tests.open_files import held_files
from tests.waiting import wait_until

CLONE_AS = Path(__file__).parent / "clone_as.py"
OBSTINATE = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('ready', flush=True); time.sleep(600)"
)


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "600"])


def obstinate() -> "subprocess.Popen[bytes]":
    """One that ignores SIGTERM by now."""
    process = subprocess.Popen([sys.executable, "-c", OBSTINATE], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    process = sleeper()
    yield process
    process.kill()
    process.wait()


def identity_of(pid: int) -> Identity:
    process = read_process(pid)
    assert process is not None
    return process.identity


def now_ticks() -> int:
    """Now, as start times are told."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


@contextmanager
def another_of_number(pid: int) -> Iterator["subprocess.Popen[str]"]:
    """A new process of a number that was another's before: it lives as long as its parent here."""
    wait_until(lambda: read_process(pid) is None)
    parent = subprocess.Popen(
        [sys.executable, str(CLONE_AS), str(pid)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == f"{pid}\n"
    try:
        yield parent
    finally:
        os.kill(pid, signal.SIGKILL)
        parent.wait()


async def test_a_process_that_takes_sigterm_gets_no_more(child: "subprocess.Popen[bytes]") -> None:
    assert await end_process(identity_of(child.pid)) is True
    assert child.wait() == -signal.SIGTERM


async def test_one_that_ignores_it_is_killed_after_the_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.2)
    child = obstinate()
    assert await end_process(identity_of(child.pid)) is True
    assert child.wait() == -signal.SIGKILL


async def test_a_number_that_is_another_processs_by_now_is_never_touched() -> None:
    first = sleeper()
    identity = identity_of(first.pid)
    first.kill()
    first.wait()
    wait_until(lambda: now_ticks() > identity.start_time_ticks)
    with another_of_number(identity.pid) as second:
        assert identity_of(identity.pid).pid == identity.pid
        assert not is_alive(identity)
        assert await end_process(identity) is False
        assert second.poll() is None


async def test_one_that_is_replaced_while_it_is_being_ended_takes_no_other_with_it(
    child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the start time and the signal: the descriptor stays with the first."""
    identity, look = identity_of(child.pid), processes.is_alive
    with ExitStack() as stack:
        others: list[subprocess.Popen[str]] = []

        def look_and_then_it_dies(asked: Identity) -> bool:
            alive = look(asked)
            child.kill()
            child.wait()
            others.append(stack.enter_context(another_of_number(asked.pid)))
            return alive

        monkeypatch.setattr(processes, "is_alive", look_and_then_it_dies)
        await end_process(identity)
        assert [each.poll() for each in others] == [None]


async def test_a_process_that_is_gone_is_no_error() -> None:
    child = sleeper()
    identity = identity_of(child.pid)
    child.kill()
    child.wait()
    assert await end_process(identity) is False


async def test_many_are_ended_at_once_and_no_descriptor_is_left() -> None:
    before = held_files()
    children = [sleeper() for _ in range(20)]
    await asyncio.gather(*(end_process(identity_of(each.pid)) for each in children))
    assert [each.wait() for each in children] == [-signal.SIGTERM] * 20
    assert held_files() == before


def test_who_a_process_is_by_proc(child: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    process = read_process(child.pid)
    assert process is not None
    assert process.identity.start_time_ticks > 0
    assert not process.is_kernel_thread
    assert process.control_group.startswith("/")
    assert read_process(2**22 + 1) is None
    folder = tmp_path / "9"
    folder.mkdir()
    numbers = " ".join(map(str, range(4, 53)))
    (folder / "stat").write_text(f"9 (a) b (c)) S {numbers}\n")
    (folder / "cgroup").write_text("0::/user.slice\n")
    odd = read_process(9, tmp_path)
    assert odd is not None
    assert (odd.identity, odd.state, odd.control_group) == (Identity(9, 22), "S", "/user.slice")


def test_threads_of_the_kernel_are_known_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "2"
    folder.mkdir()
    (folder / "stat").write_text("2 (kthreadd) S 0 0 0 0 -1 2129984 " + "0 " * 40)
    (folder / "cgroup").write_text("0::/\n")
    kthreadd = read_process(2, tmp_path)
    assert kthreadd is not None
    assert kthreadd.is_kernel_thread


def test_a_foreign_namespace_is_known_as_one(tmp_path: Path) -> None:
    assert not in_initial_namespace(tmp_path)
    assert not in_initial_namespace(tmp_path / "nothing")
