# SPDX-License-Identifier: Apache-2.0
"""What the guard's whole process costs on a real card; it reads, and can't set.

The driver's own library takes what it takes in whoever starts it (14.6 MiB, driver 580.159 on an
H200), so that is measured beside the guard, and the rest is held to the promise.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.nvml.library import DRIVER_VERSION_FILE, choose_library
from tests.gpu.cards import first_card, write_plan

MOST_OF_OURS_KIB = 30 * 1024
# What a process has of its own before and after it has started the driver's library.
START_OF_DRIVER = """
import pynvml
for start in (lambda: None, pynvml.nvmlInit):
    start()
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("RssAnon")))
"""
DEADLINE_SECONDS = 60.0
SAMPLED = 100  # snapshots: more than a minute and a half of the whole loop


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    if not DRIVER_VERSION_FILE.exists():
        pytest.skip("no NVIDIA GPU")
    card, _ = first_card(choose_library())
    write_plan(card, tmp_path)
    for name in ("disk", "run"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-m", "tests.gpu.guard_process", str(tmp_path)]
    with subprocess.Popen(command) as process:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0


def test_it_guards_within_its_memory(guard: subprocess.Popen[bytes], tmp_path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS + SAMPLED
    snapshot = tmp_path / "0.json"
    while not snapshot.exists() or json.loads(snapshot.read_bytes())["sequence"] < SAMPLED:
        assert guard.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.5)
    data = json.loads(snapshot.read_bytes())["data"]
    assert data["state"] == "normal"
    assert data["original_power_limit_watts"] == data["power_limit_watts"]
    status = Path(f"/proc/{guard.pid}/status").read_text(encoding="ascii")
    anonymous = next(int(line.split()[1]) for line in status.splitlines() if "RssAnon" in line)
    drivers = kib_of_driver()
    print(f"RssAnon after {SAMPLED} snapshots: {anonymous} KiB, {drivers} of them the driver's")
    assert anonymous - drivers <= MOST_OF_OURS_KIB


def kib_of_driver() -> int:
    """What starting the driver's library costs a process that has nothing else."""
    command = [sys.executable, "-c", START_OF_DRIVER]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before, after = map(int, told.split())
    return after - before
