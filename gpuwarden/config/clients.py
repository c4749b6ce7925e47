# SPDX-License-Identifier: Apache-2.0
"""The settings that bound what one client can take: connections, headers, time."""

from gpuwarden.config.settings import Section, setting


class ClientsSettings(Section):
    """Part of ``[gateway]``: limits of who is slow, says nothing, or comes too often."""

    connections_limit: int = setting(
        2000,
        description="Connections that may be open at the same time. One more is closed at once.",
        why="an eighth of the unit's descriptors; the workers' buffers need some",
        unit="connections",
        at_least=1,
        at_most=10000,
    )
    header_timeout_seconds: float = setting(
        20.0,
        description="Time for a request's HTTP headers, from their first byte (for the first "
        "request from the connection on). Then 408.",
        why="a second is much for a healthy client; a bad line gets twenty",
        unit="seconds",
        at_least=0.1,
        at_most=600,
    )
    idle_timeout_seconds: float = setting(
        75.0,
        description="Time that a connection without a request stays open.",
        why="what web servers commonly keep; a client that asks again within it saves a connection",
        unit="seconds",
        at_least=0.1,
        at_most=3600,
    )
    reader_timeout_seconds: float = setting(
        30.0,
        description="Time for a client to take what was sent of its answer. Then the connection is "
        "closed, and a model that still writes to it is set free.",
        why="who reads nothing for so long has gone",
        unit="seconds",
        at_least=0.1,
        at_most=3600,
    )
