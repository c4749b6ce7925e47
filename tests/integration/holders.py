# SPDX-License-Identifier: Apache-2.0
"""Processes that hold memory of a simulated card, in all the ways that processes can."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until

GIB = 2**30

# Attaches, has the card's device open as CUDA has it, says so with its PID, and then does as told.
HOLDER = """\
import ctypes, json, os, socket, sys, threading, time
folder, uuid, kind, way = sys.argv[1:]
device = os.open(f"{folder}/card-{uuid}", os.O_RDONLY)
if way == "mapped":
    import mmap
    held = mmap.mmap(device, 1, prot=mmap.PROT_READ)
    os.close(device)
connection = socket.socket(socket.AF_UNIX)
connection.connect(f"{folder}/attach.sock")
wish = {"uuid": uuid, "vram_bytes": 2**30, "kind": kind}
connection.sendall(json.dumps(wish).encode() + b"\\n")
assert b"true" in connection.recv(100)
if way == "daemon":  # forks, and forks again in a session of its own; the first two end
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
if way == "leader":  # its first thread ends, another holds on
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print(os.getpid(), flush=True)
if way == "leader":
    ctypes.CDLL(None).syscall(60, 0)
time.sleep(600)
"""


@contextmanager
def holding(
    folder: Path,
    uuid: str,
    *,
    kind: str = "compute",
    way: str = "",
    prefix: tuple[str, ...] = (),
    tag: str | None = None,
) -> Iterator[int]:
    """Such a process; the PID that it has for itself. Ended, with all its kind, at the end."""
    environment = {k: v for k, v in os.environ.items() if k != "GPUWARDEN_WORKER"}
    if tag is not None:
        environment["GPUWARDEN_WORKER"] = tag
    device = folder / f"card-{uuid}"
    if not device.stat().st_size:
        device.write_bytes(b"\0")  # an empty file can't be mapped
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", HOLDER, str(folder), uuid, kind, way],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    try:
        yield pid
    finally:
        inner = 0 if prefix else pid
        for each in {process.pid, inner} - {0}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        if inner:
            wait_until(lambda: not Path(f"/proc/{inner}").exists())
