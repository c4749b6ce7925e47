"""``gpuwarden reload``: validate first, then ask each component; whoever can't keeps the old."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gpuwarden.bus.errors import BusError
from gpuwarden.config import Configuration, ConfigurationError, load_configuration
from gpuwarden.control.requests import RELOAD, ReloadAnswer
from gpuwarden.control.snapshot import write_atomically
from gpuwarden.control.socket import ControlError, ask_async
from gpuwarden.guard.node import node_rules
from gpuwarden.names import ACCEPTED_CONFIGURATION_FILE, GATEWAY_CONTROL_SOCKET
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import JobError

ASK_TIMEOUT_SECONDS = 20.0
WORKERS_NOTE = "workers take new settings when they start again"


def accept(configuration: Configuration) -> None:
    """Make a valid configuration the one that every component runs on. Raises OSError."""
    content = configuration.model_dump_json(indent=1).encode()
    write_atomically(ACCEPTED_CONFIGURATION_FILE, content)


def refusal(error: ConfigurationError) -> str:
    """The first problem, and how many more there are, on one line."""
    more = len(error.problems) - 1
    return f"{error.problems[0]}" + (f" (and {more} more)" if more else "")


async def reload(replan: Callable[[], Awaitable[None]]) -> ReloadAnswer:
    """Take changed files into use: validate, then ask each component in turn.

    :param replan: has the placement planned again; raises JobError.
    """
    try:
        configuration = await asyncio.to_thread(load_configuration, rules=node_rules())
    except ConfigurationError as error:
        why = refusal(error)
        message = f"the former configuration stays in use: {why}"
        tell(Event.CONFIGURATION_REFUSED, message, logging.ERROR, REASON=why)
        return ReloadAnswer(problems=[str(problem) for problem in error.problems])
    accept(configuration)
    logging.getLogger().setLevel(configuration.log.level.upper())
    tell(Event.CONFIGURATION_ACCEPTED, "configuration accepted")
    applied, kept = ["guard"], {}
    for name, work in (("placement", replan), ("gateway", _gateway)):
        try:
            await work()
            applied.append(name)
        except (JobError, BusError, ControlError) as error:
            kept[name] = str(error)
    return ReloadAnswer(applied=applied, kept=kept, notes=[WORKERS_NOTE])


async def _gateway() -> None:
    await ask_async(GATEWAY_CONTROL_SOCKET, {"request": RELOAD}, ASK_TIMEOUT_SECONDS)
