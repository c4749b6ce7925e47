# SPDX-License-Identifier: Apache-2.0
"""Draws both policies on a card whose fan fails: python -m tools.policy_drawings.

For docs/thermal.md; it draws what ``gpuwarden simulate --plot`` does of the shipped scenario.
"""

import contextlib
import io
from pathlib import Path

from gpuwarden.cli.main import main as gpuwarden

ROOT = Path(__file__).parents[1]
SCENARIO = ROOT / "packaging" / "scenarios" / "fan-failure.json"
CARD = "A4000"
IMAGES = ROOT / "docs" / "images"
POLICIES = ("regulated", "stepped")


def drawing(policy: str) -> str:
    """The file's name."""
    return f"fan-failure-{policy}.svg"


def draw(policy: str, folder: Path) -> Path:
    """Rehearse the policy and draw it. Raises RuntimeError where that can't be done."""
    file = folder / drawing(policy)
    command = ["simulate", "--card", CARD, "--scenario", str(SCENARIO), "--policy", policy]
    with contextlib.redirect_stdout(io.StringIO()) as told:
        status = gpuwarden([*command, "--plot", str(file)])
    if status:
        raise RuntimeError(f"gpuwarden simulate ended with {status}: {told.getvalue()}")
    return file


if __name__ == "__main__":
    for each in POLICIES:
        print(draw(each, IMAGES))
