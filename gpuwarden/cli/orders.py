# SPDX-License-Identifier: Apache-2.0
"""Orders to the running service over the bus, where polkit decides who may give them."""

from typing import Any

from gpuwarden import names
from gpuwarden.cli import busctl

MANAGER = f"{names.BUS_NAME}.Manager"


def order(method: str, *arguments: str, action: str) -> list[Any]:
    """Call a method of the Manager that changes something; what it answers.

    :param arguments: a D-Bus signature and as many values; nothing for a method without any.
    :param action: polkit's, to tell who may.
    :raises CommandError: as :func:`busctl.call`.
    """
    return busctl.call(
        names.ROOT_OBJECT,
        MANAGER,
        method,
        *arguments,
        timeout_seconds=busctl.ORDER_TIMEOUT_SECONDS,
        denied=f"{names.BUS_NAME} denies it: root, or members of the group "
        f"{names.OPERATORS_GROUP} whom polkit lets ({action})",
        failed="not done",
    )
