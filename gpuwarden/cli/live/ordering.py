# SPDX-License-Identifier: Apache-2.0
"""Gives the orders of ``gpuwarden top``, as ``gpuwarden workers`` and ``thermal`` do."""

from collections.abc import Callable

from gpuwarden.cli import thermal_orders, worker_orders
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.live.session import Order

Say = Callable[[str, str], None]


def carry_out(order: Order, say: Say) -> None:
    """Do it and wait for its end; ``say`` is told each step, and how that is painted."""
    say(f"{order.text} ...", "")
    try:
        say(_done(order, say), "good")
    except CommandError as error:
        say(f"{order.text}: {error}", "bad")


def _done(order: Order, say: Say) -> str:
    """What came of it. Raises CommandError."""
    if order.verb == "override":
        return thermal_orders.override(order.number, order.state, order.seconds).text
    if order.verb == "clear-override":
        return thermal_orders.clear_override(order.number).text
    progress = worker_orders.give(order.verb, order.number)
    progress = worker_orders.followed(progress, lambda step: say(f"{order.text}: {step}", ""))
    if progress.failed:
        raise CommandError(progress.failed, Exit.WRONG)
    return "; ".join(progress.outcome)
