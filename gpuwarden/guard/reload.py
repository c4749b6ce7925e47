# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden reload``: validate first, then ask each component; whoever can't keeps the old."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from gpuwarden.bus.errors import BusError, Busy, Failed
from gpuwarden.config import Configuration, ConfigurationError, digest, load_configuration
from gpuwarden.control.requests import RELOAD, ReloadAnswer
from gpuwarden.control.snapshot import write_atomically
from gpuwarden.control.socket import ControlError, ask_async
from gpuwarden.guard.node import node_rules
from gpuwarden.names import ACCEPTED_CONFIGURATION_FILE, GATEWAY_CONTROL_SOCKET
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import JobError
from gpuwarden.text import one_line

ASK_TIMEOUT_SECONDS = 20.0
PROBLEMS_TOLD = 20  # on the bus, where a message is bounded; `gpuwarden config check` lists all


class Reloading:
    """One reload at a time, whoever asks for it.

    Joining one that is under way would answer for files that were changed after it had read them.

    :param work: does it.
    """

    def __init__(self, work: Callable[[], Awaitable[ReloadAnswer]]) -> None:
        self._work = work
        self._under_way = False

    async def reload(self) -> ReloadAnswer:
        """Take changed files into use. Raises Busy."""
        if self._under_way:
            raise Busy("a reload is under way; try again when it has ended")
        self._under_way = True
        try:
            return await self._work()
        finally:
            self._under_way = False


def check_complete(answer: ReloadAnswer) -> None:
    """Raise Failed if anybody keeps former settings: with file, line and problem, or with who."""
    told = answer.problems[:PROBLEMS_TOLD]
    if len(answer.problems) > len(told):
        told.append(f"{len(answer.problems) - len(told)} more (gpuwarden config check)")
    if told:
        told.append("nothing was changed: the service keeps its settings")
    told += [f"{name} keeps its old settings: {why}" for name, why in answer.kept.items()]
    if told:
        raise Failed("; ".join(one_line(each) for each in told))


def accept(configuration: Configuration) -> None:
    """Make a valid configuration the one that every component runs on. Raises OSError."""
    content = configuration.model_dump_json(indent=1).encode()
    write_atomically(ACCEPTED_CONFIGURATION_FILE, content)


def refusal(error: ConfigurationError) -> str:
    """The first problem, and how many more there are, on one line."""
    more = len(error.problems) - 1
    return f"{error.problems[0]}" + (f" (and {more} more)" if more else "")


async def reload(
    replan: Callable[[str], Awaitable[None]],
    cards: Callable[[], Iterable[int]],
    reload_card: Callable[[int], Awaitable[None]],
    retune: Callable[[], Awaitable[None]],
    outdated: Callable[[], list[int]] = list,
) -> ReloadAnswer:
    """Take changed files into use: validate, then ask each component.

    :param replan: has the placement planned again for the configuration of this digest; raises
        JobError.
    :param cards: the cards that are there, asked for after that.
    :param reload_card: has a card's thermal guard take it; raises ControlError with the reason why
        it keeps the old.
    :param retune: has the host tuned or left alone; raises JobError.
    :param outdated: the workers that need a restart after that.
    """
    try:
        configuration = await asyncio.to_thread(load_configuration, rules=node_rules())
    except ConfigurationError as error:
        why = refusal(error)
        message = f"the former configuration stays in use: {why}"
        tell(Event.CONFIGURATION_REFUSED, message, logging.ERROR, REASON=why)
        return ReloadAnswer(problems=[str(problem) for problem in error.problems])
    try:
        accept(configuration)
    except OSError as error:
        return ReloadAnswer(problems=[f"{error.filename}: {error.strerror}"])
    logging.getLogger().setLevel(configuration.log.level.upper())
    tell(Event.CONFIGURATION_ACCEPTED, "configuration accepted")
    outcomes = {"guard": ""}
    outcomes["placement"] = await _outcome(replan(digest(configuration)))
    # All at once: one that doesn't answer costs its time once.
    asked = {"gateway": _gateway()} | {f"thermal@{card}": reload_card(card) for card in cards()}
    asked["tuning"] = retune()
    answers = await asyncio.gather(*(_outcome(work) for work in asked.values()))
    outcomes |= dict(zip(asked, answers, strict=True))
    return ReloadAnswer(
        applied=[name for name, why in outcomes.items() if not why],
        kept={name: why for name, why in outcomes.items() if why},
        restart=outdated(),
    )


async def _outcome(work: Awaitable[None]) -> str:
    """Why a component keeps its old settings; empty if it took the new ones."""
    try:
        await work
    except (JobError, BusError, ControlError) as error:
        return str(error) or type(error).__name__
    return ""


async def _gateway() -> None:
    await ask_async(GATEWAY_CONTROL_SOCKET, {"request": RELOAD}, ASK_TIMEOUT_SECONDS)
