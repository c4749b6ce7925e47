# SPDX-License-Identifier: Apache-2.0
"""When a server can serve: its page answers, and one of its processes is on the card."""

import asyncio
import logging
import time
from typing import Callable, Optional

from gpuwarden.worker.engines.command.upstream import UpstreamError, asked, is_open
from gpuwarden.worker.waiting import within

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # between two looks while it starts
ANSWER_SECONDS = 10.0  # a server that decodes large images on its loop takes some
# A scan comes each 5 s by default; longer without a word means that there is none.
SCAN_PATIENCE_SECONDS = 20.0

IsOnCard = Callable[[], Optional[bool]]
Show = Callable[[str], None]


async def is_well(port: int, path: str) -> bool:
    """Whether it answers now: its page with 2xx or 3xx, or, without one, its port."""
    try:
        return await within(ANSWER_SECONDS, _is_well(port, path))
    except (UpstreamError, asyncio.TimeoutError):
        return False


async def _is_well(port: int, path: str) -> bool:
    if not path:
        return await is_open(port)
    async with asked(port, "GET", path) as answer:
        return 200 <= answer.status < 400


async def until_well(port: int, path: str, show: Show) -> None:
    """Wait until it answers; whoever waits for this has a limit."""
    show(f"its server starts; waiting for http://127.0.0.1:{port}{path}")
    while not await is_well(port, path):  # noqa: ASYNC110 - nothing tells of a port that opens
        await asyncio.sleep(LOOK_SECONDS)


async def until_on_card(is_on_card: IsOnCard, show: Show) -> None:
    """Wait until the card's list has it; not for ever where nobody can tell."""
    show("its server answers; waiting for it to be on the card")
    unknown_since = time.monotonic()
    while not (found := is_on_card()):
        if found is False:
            unknown_since = time.monotonic()
        elif time.monotonic() - unknown_since > SCAN_PATIENCE_SECONDS:
            _log.warning("no scan tells whether its server is on the card: it is taken to be")
            return
        await asyncio.sleep(LOOK_SECONDS)
