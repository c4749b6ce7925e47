# SPDX-License-Identifier: Apache-2.0
"""The written form of a thread's priority: ``normal`` or ``fifo:10``. Pure."""

import re

NORMAL = "normal"
LOWEST, HIGHEST = 1, 99  # sched(7): what SCHED_FIFO takes
ALLOWED = f'"{NORMAL}" or "fifo:{LOWEST}" to "fifo:{HIGHEST}"'
_FIFO = re.compile(r"fifo:(?P<priority>[1-9][0-9]?)")


class PriorityError(ValueError):
    """A text that names no priority; it says what is wrong with it."""


def parse_priority(text: str) -> int | None:
    """The real-time priority that ``text`` names; None for ``normal``.

    :raises PriorityError: it names neither.
    """
    if text == NORMAL:
        return None
    match = _FIFO.fullmatch(text)
    if match is None:
        raise PriorityError(_hint(text))
    return int(match["priority"])


def _hint(text: str) -> str:
    policy, _, number = text.partition(":")
    if policy == "fifo" and not number:
        return 'no priority given, like the 10 of "fifo:10"'
    if policy == "fifo" and number.isascii() and number.isdigit():
        # Digits that are in range are only spelled wrongly: fifo:010.
        value = int(number) if len(number) < 3 or number.startswith("0") else HIGHEST + 1
        if LOWEST <= value <= HIGHEST:
            return f'"fifo:{value}"?'
        return f"real-time priorities go from {LOWEST} to {HIGHEST}"
    if policy in ("rr", "deadline", "batch", "idle", "other"):
        return f"the policy {policy} is not used"
    return "not a priority"
