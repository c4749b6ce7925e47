"""``gpuwarden reload``: validate first, then ask each component; whoever can't keeps the old."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from gpuwarden.config import Configuration, ConfigurationError, load_configuration
from gpuwarden.control.snapshot import write_atomically
from gpuwarden.control.socket import ControlError, ask
from gpuwarden.names import ACCEPTED_CONFIGURATION_FILE, GATEWAY_CONTROL_SOCKET
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import JobError

RELOADED = "reloaded"
ASK_TIMEOUT_SECONDS = 20.0


def accept(configuration: Configuration) -> None:
    """Make a valid configuration the one that every component runs on. Raises OSError."""
    content = configuration.model_dump_json(indent=1).encode()
    write_atomically(ACCEPTED_CONFIGURATION_FILE, content)


def refusal(error: ConfigurationError) -> str:
    """The first problem, and how many more there are, on one line."""
    more = len(error.problems) - 1
    return f"{error.problems[0]}" + (f" (and {more} more)" if more else "")


async def reload(replan: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Take a changed configuration into use.

    :param replan: has the placement planned again.
    :return: ``{"components": {name: "reloaded" or why it kept the old}, "problems": [...]}``.
    """
    try:
        configuration = await asyncio.to_thread(load_configuration)
    except ConfigurationError as error:
        tell(
            Event.CONFIGURATION_REFUSED,
            f"the former configuration stays: {refusal(error)}",
            logging.ERROR,
            REASON=refusal(error),
        )
        problems = [str(problem) for problem in error.problems]
        return {"components": {"guard": "kept the former configuration"}, "problems": problems}
    accept(configuration)
    logging.getLogger().setLevel(configuration.log.level.upper())
    tell(Event.CONFIGURATION_ACCEPTED, "configuration accepted")
    components = {
        "guard": RELOADED,
        "placement": await _placement(replan),
        "gateway": await _gateway(),
    }
    return {"components": components, "problems": []}


async def _placement(replan: Callable[[], Awaitable[None]]) -> str:
    try:
        await replan()
    except JobError as error:
        return f"kept the former plan: {error}"
    return RELOADED


async def _gateway() -> str:
    try:
        await ask(GATEWAY_CONTROL_SOCKET, {"request": "reload"}, ASK_TIMEOUT_SECONDS)
    except (OSError, ControlError) as error:
        return f"kept the former configuration: {error}"
    return RELOADED
