# SPDX-License-Identifier: Apache-2.0
"""Runs sections of the data plane's benchmark and puts what they say together."""

import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.dataplane.report import Section, goals_of
from tests.bench.dataplane.sections import PEERS, SECTIONS, Scale
from tests.bench.dataplane.systems import GATEWAY, running


async def run(
    names: Sequence[str], scale: Scale, peers: Sequence[str] = PEERS, folder: Path | None = None
) -> list[Section]:
    """The sections of these names, on our front door and the peers."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as place:
        async with running([GATEWAY, *peers], Path(place)) as systems:
            return [await SECTIONS[name](systems, scale) for name in names]


def document(sections: Sequence[Section]) -> list[str]:
    """All of it as Markdown: the goals first."""
    lines = [machine(), "", *goals_of(sections)]
    for section in sections:
        lines += section.lines()
    return lines


def machine() -> str:
    """Where it was measured, in general words."""
    processors = len(os.sched_getaffinity(0))
    kernel = platform.release().split("-")[0]
    return f"Processors: {processors}; Linux {kernel}; Python {platform.python_version()}."
