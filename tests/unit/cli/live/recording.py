# SPDX-License-Identifier: Apache-2.0
"""What tests.system.record_hot_node has recorded of a node with a card in alert."""

import json
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.cli.known import Known
from gpuwarden.cli.live.trail import Sample, Trail
from gpuwarden.control.states import GuardData

RECORDING = Path(__file__).parent / "data" / "hot_node.json"


@dataclass(frozen=True)
class Recorded:
    """A moment of a real node, and the minutes before it."""

    unix_seconds: float
    known: Known
    trail: Trail


def recorded() -> Recorded:
    """The recording."""
    document = json.loads(RECORDING.read_text())
    return Recorded(
        document["unix_seconds"],
        Known(GuardData.model_validate(document["status"])),
        {
            int(index): tuple(Sample(**each) for each in samples)
            for index, samples in document["trail"].items()
        },
    )
