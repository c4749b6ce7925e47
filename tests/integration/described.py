# SPDX-License-Identifier: Apache-2.0
"""Holds what the front door answers in any test to what its document says."""

import json

from gpuwarden.gateway.operations import OPERATIONS, Operation, statuses_of

OURS = "internal_error"  # a fault of the front door is no part of any operation


def operation_of(method: str, path: str) -> Operation | None:
    """What is asked for; None where that is in no document."""
    path = path.partition("?")[0]
    family = path.rpartition("/")[0] + "/{id}"
    for wanted in (path, family):
        for operation in OPERATIONS:
            if (operation.method, operation.path) == (method, wanted):
                return operation
    return None


def undescribed_error(method: str, path: str, status: int, body: bytes) -> str | None:
    """The type of an error that the operation's part of the document doesn't name."""
    operation = operation_of(method, path)
    if operation is None or operation.unready is not None or status < 400:
        return None
    kind: str = json.loads(body)["error"]["type"]
    described = statuses_of(operation).get(status, [])
    return None if kind in (*described, OURS) else kind
