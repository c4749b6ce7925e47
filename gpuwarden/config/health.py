# SPDX-License-Identifier: Apache-2.0
"""When a worker counts as unwell, and what is done about it without anybody being asked."""

from gpuwarden.config.kinds import GIB, TIB, Bytes
from gpuwarden.config.settings import Section, setting


class HealthSettings(Section):
    """When a running worker is started again, and what is ended by itself."""

    stuck_grace_seconds: float = setting(
        40.0,
        description="A worker that is stuck (a batch past execution_timeout_seconds, or nothing "
        "heard of it) is restarted after so long.",
        why="systemd's watchdog ends it within 30; this is for where that fails or is switched off",
        unit="seconds",
        at_least=1,
        at_most=3600,
    )
    memory_soft_limit: float = setting(
        0.9,
        description="Share of memory_max_bytes that a worker may grow to: above it, it is "
        "restarted at the next idle moment. MemoryHigh= of its unit counts instead, if it is set.",
        why="a restart when nobody waits is better than the kernel's in the middle of a batch",
        unit="of memory_max_bytes; 1 switches it off",
        at_least=0.1,
        at_most=1,
    )
    fragmentation_limit: float = setting(
        0.5,
        description="Share of its reserved card memory that a worker's framework may leave unused. "
        "More than that for fragmentation_seconds, and it is restarted at the next idle moment.",
        why="half of it unused for long is memory that the next large image will not get",
        unit="of the reserved bytes; 1 switches it off",
        at_least=0.05,
        at_most=1,
    )
    fragmentation_seconds: float = setting(
        600.0,
        description="How long the fragmentation must last.",
        why="one large image leaves holes that the next ones fill",
        unit="seconds",
        at_least=1,
        at_most=86400,
    )
    fragmentation_at_least_bytes: Bytes = setting(
        2 * GIB,
        description="Reserved card memory below which fragmentation is no matter.",
        why="half of a little is little",
        unit="bytes",
        at_least=0,
        at_most=TIB,
    )
    reap_orphans: bool = setting(
        True,
        description="Whether processes that a dead worker has left on a card are ended. Other "
        "programs never are, unless you ask for it one by one (gpuwarden reap).",
        why="what they hold is missing for the next start, and nobody else cares for them",
        allowed="true or false",
    )
