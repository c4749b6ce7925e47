# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.engine.floor FOLDER``: how long the card takes to read the weights once.

A decode step of one request reads every weight of the language model, so no step is shorter. The
card's bandwidth is measured, since cards of one name differ: the best of several copies, which read
and write, as in the research that the goals come from. A process of its own: nothing stays.
"""

import json
import sys
from pathlib import Path
from typing import Any

from gpuwarden.worker.engines.memoryplan import VALUE_BYTES
from gpuwarden.worker.engines.modelshape import shape_of

COPIED_BYTES = 4 << 30  # far beyond any cache of a card
REPEATS = 12


def text_bytes(config: dict[str, Any], dtype: str) -> int:
    """Of the weights that a decode step reads: all but the eyes. Pure."""
    shape = shape_of(config)
    eyes = 0 if shape.vision is None else shape.vision.parameters
    return (shape.parameters - eyes) * VALUE_BYTES[dtype]


def floor_of(weights: int, bytes_per_second: float, card: str) -> dict[str, Any]:
    """What the bandwidth comes to. Pure."""
    return {
        "card": card,
        "text_weights_bytes": weights,
        "bytes_per_second": bytes_per_second,
        "milliseconds": 1000 * weights / bytes_per_second,
    }


def copied_per_second() -> float:
    """Bytes read and written by the fastest of several copies on the first card."""
    import torch  # noqa: PLC0415 - the interpreter of the card has it

    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds: list[float] = []
    for _ in range(REPEATS):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        target.copy_(source)
        ended.record()
        torch.cuda.synchronize()
        seconds.append(began.elapsed_time(ended) / 1000)
    return 2 * COPIED_BYTES / min(seconds)


def main(folder: Path) -> None:
    """Print it as JSON."""
    import torch  # noqa: PLC0415

    weights = text_bytes(json.loads((folder / "config.json").read_text()), "bfloat16")
    print(json.dumps(floor_of(weights, copied_per_second(), torch.cuda.get_device_name())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
