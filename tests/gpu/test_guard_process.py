# SPDX-License-Identifier: Apache-2.0
"""What the guard's whole process costs on a real card; it reads, and can't set."""

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

MOST_ANONYMOUS_KIB = 40 * 1024
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
    print(f"RssAnon {anonymous / 1024:.1f} MiB after {SAMPLED} snapshots")
    assert anonymous <= MOST_ANONYMOUS_KIB
