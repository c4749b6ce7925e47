"""Records a node with a card in alert: python -m tests.integration.record_hot_node [SECONDS].

Real thermal guards on simulated cards, a real supervisor and a real front door with requests. What
``gpuwarden top`` shows of it is in tests and, as pictures, in the documentation.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.cli.live.trail import Trail, longer
from gpuwarden.control.states import GuardData
from gpuwarden.values import ThermalState
from tests.integration.hot_cards import hot_cards
from tests.integration.simulated_cards import build_library
from tests.integration.supervised_node import SupervisedNode, supervised_node
from tests.unit.cli.live.recording import RECORDING

SECONDS = 300.0
EVERY_SECONDS = 3.0
HALF_WAY = 0.5
CONFIGURATION = """\
[thermal]
policy = "regulated"
alert_celsius = 70
critical_celsius = 80
safe_celsius = 62
"""


def main() -> None:
    """Record, and write the file."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        ExitStack() as stack,
    ):
        root = Path(folder)
        (root / "cards").mkdir()
        cards = stack.enter_context(hot_cards(root / "cards", build_library(root)))
        cards.configure(CONFIGURATION)
        for index in (0, 1):
            stack.enter_context(cards.guarded(index))
        cards.ask(command="load", gpu=1, fraction=0.4)

        def heat() -> None:
            cards.ask(command="set", gpu=0, ambient_celsius=45.0)
            cards.ask(command="load", gpu=0, fraction=0.95)

        async def record() -> tuple[SupervisedNode, Trail]:
            async with supervised_node(root, patch) as node:
                patch.setattr(
                    names,
                    "thermal_snapshot_file",
                    lambda index: cards.root / f"thermal-{index}.json",
                )
                return node, await watched(node, seconds, heat)

        node, trail = asyncio.run(record())
        document = {
            "unix_seconds": time.time(),
            "status": node.data.model_dump(mode="json"),
            "trail": {
                index: [asdict(each) for each in samples] for index, samples in trail.items()
            },
        }
    RECORDING.write_text(json.dumps(document, indent=1) + "\n")
    print(RECORDING)


async def watched(node: SupervisedNode, seconds: float, heat: Callable[[], None]) -> Trail:
    """The cards' figures over this time; half-way through, one gets hot."""
    await node.open_up()
    await node.until(lambda data: data.workers_ready == 2 and all_are_normal(data))
    for number in (0, 1):
        await node.gateway.worker(number)
    trail: Trail = {}
    began = time.monotonic()
    is_hot = False
    while (passed := time.monotonic() - began) < seconds or not is_in_alert(node):
        if passed > HALF_WAY * seconds and not is_hot:
            is_hot = True
            heat()
        await node.gateway.post(b"image", path="/predict?question=q", media_type="image/png")
        trail = longer(trail, node.data.gpus, time.time())
        await asyncio.sleep(EVERY_SECONDS)
    return trail


def all_are_normal(data: GuardData) -> bool:
    """Whether every thermal guard speaks, and has nothing to do."""
    return all(gpu.state is ThermalState.NORMAL for gpu in data.gpus)


def is_in_alert(node: SupervisedNode) -> bool:
    """Whether there is something to see."""
    return node.data.gpus[0].state is ThermalState.ALERT


if __name__ == "__main__":
    main()
