# SPDX-License-Identifier: Apache-2.0
"""Whether the card still answers: asked when no process of the worker stands in the card's list.

What can't be known is said to be unknown: only a card that refuses counts as lost.
"""

from typing import Any, Tuple

from gpuwarden.worker.engine import Engine
from gpuwarden.worker.faults import location
from gpuwarden.worker.shortage import is_out_of_memory, torch_in_use

# For the end of the batch that runs, and one tiny kernel, which takes 21 ms the first time and
# 0.2 ms from then on (an H100, torch 2.11).
ANSWER_SECONDS = 3.0

# What a worker answers a PROBE.
ANSWERED = "answered"  # the card did what it was asked
LOST = "lost"  # the context is gone: the card refused
BUSY = "busy"  # the GPU thread didn't come to it in time, or is asked already
UNUSED = "unused"  # this engine has no context that could be lost, or none that we know of

Outcome = Tuple[str, str]  # one of these words, and why, without anything of a request


def check(engine: Engine) -> Outcome:
    """Ask the card something tiny (GPU thread)."""
    try:
        answered = engine.canary()
        if answered is None:
            answered = _ask_by_torch()
    except Exception as error:  # noqa: BLE001 - whatever a driver or an integrator raises
        if is_out_of_memory(error):
            return ANSWERED, "the card is full"  # it takes a context to be told so
        return LOST, location(error)
    if answered is None:
        return UNUSED, "the engine says nothing of its context"
    return (ANSWERED, "") if answered else (LOST, "the engine's canary() says so")


def _ask_by_torch() -> Any:
    """True after a kernel has run; None where torch has no context, which we don't make."""
    torch = torch_in_use()
    if torch is None:
        return None
    torch.ones(1, device="cuda").add_(1)
    torch.cuda.synchronize()
    return True
