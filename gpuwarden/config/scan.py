# SPDX-License-Identifier: Apache-2.0
"""How it is looked who holds the cards' memory."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from gpuwarden.config.kinds import list_to_tuple
from gpuwarden.config.settings import Section, setting


def _check_command_name(name: str) -> str:
    if not name or "/" in name or not name.isprintable():
        raise ValueError("a program's name without its folder, as `ps -o comm` shows it")
    return name


CommandName = Annotated[str, AfterValidator(_check_command_name)]
CommandNames = Annotated[tuple[CommandName, ...], BeforeValidator(list_to_tuple)]


class ScanSettings(Section):
    """Who holds the cards' memory: how often it is looked, and whom nobody need ask about."""

    period_seconds: float = setting(
        5.0,
        description="Time from one look at a card's processes to the next.",
        why="asking takes milliseconds and a lock of the driver's that working programs need; a "
        "dead worker's memory is noticed soon enough",
        unit="seconds",
        at_least=1,
        at_most=10,
    )
    monitoring: CommandNames = setting(
        (
            "nvidia-smi",
            "nvidia-persistenced",
            "nv-hostengine",
            "dcgm-exporter",
            "nvtop",
        ),
        description="Programs that watch cards: what they hold is shown and left alone.",
        why="NVIDIA's own tools, DCGM, and what administrators look at cards with",
        allowed='a list of program names, as `ps -o comm` shows them: ["nvidia-smi", "nvtop"]',
    )
