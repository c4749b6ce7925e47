# SPDX-License-Identifier: Apache-2.0
"""Draws ``gpuwarden top`` with a card in alert: python -m tools.top_pictures.

The state is one that was recorded (tests/system/record_hot_node.py); the pictures go to
docs/images. A test compares them with what the screen shows now.
"""

import asyncio
import os
import re
import time
from pathlib import Path

from gpuwarden.cli.live.app import Top, World
from gpuwarden.cli.live.lines import Line
from gpuwarden.cli.sparkline import BLOCKS
from tests.unit.cli.live.recording import Recorded, recorded

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE = (80, 24)
# By file: the keys that lead to what it shows.
PICTURES = {
    "top-alert.svg": (),
    "top-override.svg": ("o",),
    "top-help.svg": ("question_mark",),
}
# A page without network shows it in a font of its own.
_REMOTE_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_RANDOM_NAME = re.compile(r"terminal-\d+")


def world(record: Recorded) -> World:
    """One that stands still."""
    no_lines: tuple[Line, ...] = ()
    return World(
        look=lambda: record.known,
        details=lambda _thing, _data, _columns: no_lines,
        past=lambda _index: (),
        carry_out=lambda _order, _say: None,
        levels=BLOCKS,
        every_seconds=3600.0,
        now=lambda: record.unix_seconds,
    )


async def picture(record: Recorded, keys: tuple[str, ...]) -> str:
    """The screen after these keys, as SVG."""
    app = Top(world(record), record.known, record.trail)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        drawn = app.export_screenshot(title="gpuwarden top")
    return _RANDOM_NAME.sub("terminal", _REMOTE_FONTS.sub("", drawn))


def in_universal_time() -> None:
    """The clocks of a picture must not hang on where it is drawn."""
    os.environ["TZ"] = "UTC"
    time.tzset()


def main() -> None:
    """Draw them all."""
    in_universal_time()
    record = recorded()
    for name, keys in PICTURES.items():
        (IMAGES / name).write_text(asyncio.run(picture(record, keys)), encoding="utf-8")
        print(IMAGES / name)


if __name__ == "__main__":
    main()
