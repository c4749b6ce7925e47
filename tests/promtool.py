# SPDX-License-Identifier: Apache-2.0
"""Prometheus' own judge of metrics and rules: ``tools/prepare-host`` brings it."""

import subprocess
from pathlib import Path

PROMTOOL = Path(__file__).parents[1] / "build" / "promtool"


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """What it prints; fails where it finds anything wrong."""
    done = subprocess.run(
        [PROMTOOL, *arguments], input=given, capture_output=True, check=False, timeout=60
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def check_metrics(text: bytes) -> None:
    """Names, types, help and units are as Prometheus' conventions have them."""
    assert promtool("check", "metrics", given=text) == ""
