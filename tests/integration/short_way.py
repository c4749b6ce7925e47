# SPDX-License-Identifier: Apache-2.0
"""The short way of small requests: what goes it, and who has gone it."""

from typing import cast

from gpuwarden.gateway.express import ExpressHandler
from tests.integration.gateway_node import GatewayNode


def request(body: bytes = b"image", *, path: str = "/predict", more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def connections(node: GatewayNode) -> list[ExpressHandler]:
    server = node.service._runner.server
    assert server is not None
    return cast(list[ExpressHandler], server.connections)


def taken(node: GatewayNode) -> int:
    """Requests that went the short way, of the connections that are open."""
    return sum(connection.taken for connection in connections(node))
