# SPDX-License-Identifier: Apache-2.0
"""What was seen of a process, and how it came into view. Pure values."""

from dataclasses import dataclass

GONE, ZOMBIE, UNINTERRUPTIBLE = "", "Z", "D"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A process as /proc shows it.

    :ivar start_time_ticks: field 22 of /proc/PID/stat; 0 where the process is gone.
    :ivar state: the kernel's letter for all its threads together: D if one of them sleeps
        uninterruptibly, Z if none is left alive; empty where the process is gone.
    :ivar command: its name alone.
    :ivar uid: whom it belongs to (the real one); -1 where that isn't known.
    :ivar foreign_namespace: whether it is in a PID namespace of its own.
    :ivar tag: the worker that its environment names.
    :ivar unit_runs: whether the worker's unit that its control group is of is up.
    :ivar stuck: in an uninterruptible sleep now, and when it was last looked at, too.
    """

    pid: int
    start_time_ticks: int = 0
    state: str = GONE
    command: str = ""
    uid: int = -1
    control_group: str = ""
    foreign_namespace: bool = False
    tag: int | None = None
    unit_runs: bool = False
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """How a process came into view.

    :ivar kinds: the driver's lists that it is in; empty where only its descriptors give it away.
    """

    vram_bytes: int | None = None
    kinds: frozenset[str] = frozenset()
    mappings: bool = False

    @property
    def listed(self) -> bool:
        """Whether the driver names it."""
        return bool(self.kinds)


@dataclass(frozen=True, slots=True)
class Customs:
    """What is known beforehand.

    :ivar monitoring: names of programs that watch cards, cut as the kernel cuts them.
    :ivar worker_uid: the user that workers run as; None where there is no such user.
    """

    monitoring: frozenset[str] = frozenset()
    worker_uid: int | None = None
