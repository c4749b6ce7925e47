# SPDX-License-Identifier: Apache-2.0
"""Which of the configured hooks a card's new state asks for. Pure."""

from collections.abc import Mapping, Sequence

from gpuwarden.config.thermal import HookSettings
from gpuwarden.values import ThermalState

# The runner's exit status when it has told the journal itself why it failed.
TOLD_EXIT_STATUS = 3

States = Mapping[int, ThermalState]


def states_now(before: States, fresh: States) -> dict[int, ThermalState]:
    """The state of every card that was ever heard of: blind where its guard has fallen silent.

    :param fresh: what the cards' guards say now; a silent one is not in it.
    """
    return {**dict.fromkeys(before, ThermalState.BLIND), **fresh}


def entered(before: States, now: States) -> dict[int, ThermalState]:
    """The cards that have entered a state, and which.

    A card that was never heard of enters what it is first seen in, but for normal: that is no news.
    """
    return {
        gpu: state
        for gpu, state in now.items()
        if state is not before.get(gpu, ThermalState.NORMAL)
    }


def hooks_on(state: ThermalState, hooks: Sequence[HookSettings]) -> list[int]:
    """The numbers of the hooks that are for this state, as they stand in the configuration."""
    return [number for number, hook in enumerate(hooks) if state.value in hook.on]


def hook_name(number: int, hook: HookSettings | None = None) -> str:
    """A hook as messages name it. What a URL asks for is left out: it may hold a token."""
    name = f"thermal.hooks[{number}]"
    if hook is None:
        return name
    target = hook.command[0] if hook.command else str(hook.post).split("?", 1)[0]
    return f"{name} ({target})"
