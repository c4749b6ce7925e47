# SPDX-License-Identifier: Apache-2.0
"""Who holds a real card's memory: a context of our own, and one whose maker has ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.nvml.library import DRIVER_VERSION_FILE, choose_library
from gpuwarden.scan.evidence import Customs
from gpuwarden.scan.outcome import Seen
from gpuwarden.scan.processes import ProcessReader
from gpuwarden.scan.scanner import Scanner
from tests.gpu.cards import first_card, write_plan

GIB = 2**30
# A gibibyte in a context of the first card; `fork` hands it to a child and ends.
CLIENT = """\
import ctypes, os, sys, time
cuda = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    assert getattr(cuda, name)(*arguments) == 0, name
device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
call("cuInit", 0)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
call("cuCtxSetCurrent", context)
call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(2**30))
if sys.argv[1] == "fork" and os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    if not DRIVER_VERSION_FILE.exists():
        pytest.skip("no NVIDIA GPU")
    library = choose_library()
    card, _ = first_card(library)
    write_plan(card, tmp_path)
    reader = ProcessReader(host_namespace=str(Path("/proc/self/ns/pid").readlink()))
    made = Scanner(0, tmp_path / "plan.json", library, reader)
    yield made
    made.close()


def look(scanner: Scanner) -> Seen:
    found = scanner.look(Customs())
    assert isinstance(found, Seen), found
    return found


@pytest.mark.parametrize("way", ["stay", "fork"])
def test_a_context_and_its_holder_are_found(scanner: Scanner, way: str) -> None:
    before = look(scanner).used_bytes
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, way], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            found = look(scanner)
            holders = {each.pid: each for each in found.holders}
            print(found)
            assert (found.used_bytes or 0) - (before or 0) >= GIB
            assert found.unexplained_bytes == 0
            assert (holders[process.pid].vram_bytes or 0) >= GIB
            assert holders[process.pid].listed
            if way == "fork":
                assert holders[process.pid].holder_class == "defunct"
                assert (holders[pid].listed, holders[pid].mappings) == (False, True)
        finally:
            os.kill(pid, signal.SIGKILL)
