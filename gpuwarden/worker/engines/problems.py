# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a table of options, told alike by all engines. Pure."""

from dataclasses import dataclass
from typing import Sequence

from gpuwarden.worker.engine import OptionsError
from gpuwarden.worker.settings import RUNTIME_OPTIONS

# Read by the runtime, whatever the engine.
RUNTIMES_OWN = ("simulated_vram_bytes", "simulated_load", *RUNTIME_OPTIONS)


@dataclass(frozen=True)
class OptionProblem:
    """An option that can't be used; ``found`` is empty where it is missing."""

    name: str
    found: str
    wanted: str


def refuse(problems: Sequence[OptionProblem]) -> None:
    """Raises OptionsError with every problem, if there is one."""
    if problems:
        raise OptionsError(
            "; ".join(
                f"{each.name} is {each.found or 'missing'}, should be {each.wanted}"
                for each in problems
            )
        )
