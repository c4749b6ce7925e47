# SPDX-License-Identifier: Apache-2.0
"""What makes Python pause: the collector's rounds, and threads that wait for one another's turn."""

import gc
import sys

# The GPU thread wakes when a step is done, and must send the next one while the card still has
# work: at Python's own 5 ms it waits a whole step for whoever makes text or JSON meanwhile.
TURN_SECONDS = 0.0005


def take_short_turns() -> None:
    """Have threads give way to each other soon."""
    sys.setswitchinterval(TURN_SECONDS)


def settle_memory() -> None:
    """Have the collector leave alone what is loaded: with torch a full round takes over 0.2 s."""
    gc.collect()
    gc.freeze()
