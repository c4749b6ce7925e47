# SPDX-License-Identifier: Apache-2.0
"""A person at the node: output as it comes, and a shell that behaves like one."""

import contextlib
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator

from tests.node import agent
from tests.node.channel import Argv, Process
from tests.node.vm import Node

INPUT_BYTES = 1 << 16


def pass_through(node: Node, command: Argv) -> int:
    """Runs ``command`` with its output and ours being one; returns its exit status.

    A command that a signal ended gives 128 + its number, as a shell does.
    """
    process = node.start(command)
    process.on_output = write_output
    process.end_input()
    return exit_status(process)


def interactive(node: Node) -> int:
    """A root shell on this terminal, or fed from standard input where that is none."""
    if not sys.stdin.isatty():
        process = node.start(["/bin/bash"])
        process.on_output = write_output
        return converse(node, process)
    size = shutil.get_terminal_size()
    environment = {"TERM": os.environ.get("TERM", "linux")}
    process = node.start(
        ["/bin/bash", "-i"], environment=environment, terminal=(size.lines, size.columns)
    )
    process.on_output = write_output
    with raw_terminal(), followed_size(process):
        return converse(node, process)


def converse(node: Node, process: Process) -> int:
    """Carries input and output until the command ends."""
    standard_input = sys.stdin.fileno()
    listening = [standard_input]
    while process.ended is None:
        readable = node.channel.pump(None, also=listening)
        if standard_input in readable:
            data = os.read(standard_input, INPUT_BYTES)
            if data:
                process.send(data)
            else:
                process.end_input()
                listening.clear()
    return exit_status(process)


def write_output(kind: int, payload: bytes) -> None:
    """A chunk of the command's output to ours."""
    stream = sys.stdout if kind == agent.OUTPUT else sys.stderr
    stream.buffer.write(payload)
    stream.flush()


def exit_status(process: Process) -> int:
    """Waits for the command's end, however long; its status as a shell gives it."""
    status = process.wait().status
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Every key goes to the node; afterwards the terminal is as before."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin, termios.TCSADRAIN)  # what was typed ahead is kept
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextlib.contextmanager
def followed_size(process: Process) -> Iterator[None]:
    """The node's terminal changes its size with ours."""

    def changed(*_: object) -> None:
        size = shutil.get_terminal_size()
        process.resize(size.lines, size.columns)

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
