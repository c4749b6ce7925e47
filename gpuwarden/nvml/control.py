# SPDX-License-Identifier: Apache-2.0
"""One card's settings: reading them, changing them, putting them back. No policy here.

Every setter needs CAP_SYS_ADMIN in the initial user namespace. Nothing that is set here outlives
a reboot or an unload of the driver, and a reset of the card takes it away as well.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gpuwarden.nvml import calls
from gpuwarden.nvml.calls import Handle
from gpuwarden.nvml.errors import NotSupportedError
from gpuwarden.nvml.vocabulary import Architecture, Clock, Field


@dataclass(frozen=True, slots=True)
class ClockRange:
    """The clocks that a card's SMs can run at, in MHz; ``step`` is the least distance of two."""

    lowest_mhz: int
    highest_mhz: int
    step_mhz: int

    def at_most(self, mhz: float) -> int:
        """The highest clock of the card that is no higher than ``mhz``; the lowest if none is."""
        if mhz >= self.highest_mhz:
            return self.highest_mhz
        steps = max(0, int(mhz - self.lowest_mhz) // self.step_mhz)
        return self.lowest_mhz + steps * self.step_mhz


class CardControl:
    """Changes one card; belongs to the thread and the session that opened it."""

    def __init__(self, where: str, handle: Handle) -> None:
        self._where = where
        self._handle = handle

    def power_limit_milliwatts(self) -> int:
        """The power limit that was asked for, not the one that other limits enforce.

        It is the getter that belongs to the setter; field 192 says the same where a driver lacks
        it.

        :raises NotSupportedError: the card has no power limit.
        :raises NvmlError: it can't be read.
        """
        try:
            return int(self._call("nvmlDeviceGetPowerManagementLimit"))
        except NotSupportedError:
            field = Field.POWER_LIMIT_REQUESTED_MILLIWATTS
            values, _ = calls.field_values(self._where, self._handle, (field,))
            if field not in values:
                raise
            return int(values[field])

    def set_power_limit(self, milliwatts: int) -> int:
        """Ask for a power limit; what the card has then, since boards round.

        :raises NvmlError: refused, or it can't be read back.
        """
        self._call("nvmlDeviceSetPowerManagementLimit", milliwatts)
        return self.power_limit_milliwatts()

    def sm_clocks(self) -> ClockRange | None:
        """The SM clocks that can be locked; None where the card doesn't list them.

        :raises NvmlError: the card or the driver is gone.
        """
        try:
            memory = self.memory_clocks_mhz()
            if not memory:
                return None
            listed = self._call("nvmlDeviceGetSupportedGraphicsClocks", memory[0])
        except NotSupportedError:
            return None
        clocks = sorted({int(mhz) for mhz in listed})
        if not clocks:
            return None
        gaps = [high - low for low, high in pairwise(clocks)]
        return ClockRange(clocks[0], clocks[-1], min(gaps, default=1))

    def memory_clocks_mhz(self) -> tuple[int, ...]:
        """The clocks that the memory can be locked to, highest first.

        :raises NvmlError: the card doesn't list them, or it or the driver is gone.
        """
        listed = self._call("nvmlDeviceGetSupportedMemoryClocks")
        return tuple(sorted({int(mhz) for mhz in listed}, reverse=True))

    def is_at_least(self, generation: Architecture) -> bool:
        """Whether the card is of this generation or a later one; True where it doesn't say.

        :raises NvmlError: the card or the driver is gone.
        """
        try:
            return int(self._call("nvmlDeviceGetArchitecture")) >= generation
        except NotSupportedError:
            return True

    def sm_clock_mhz(self) -> int:
        """The clock that the SMs run at now. Raises NvmlError if it can't be read."""
        return int(self._call("nvmlDeviceGetClockInfo", int(Clock.SM)))

    def memory_clock_mhz(self) -> int:
        """The clock that the memory runs at now. Raises NvmlError if it can't be read."""
        return int(self._call("nvmlDeviceGetClockInfo", int(Clock.MEMORY)))

    def lock_sm_clocks(self, lowest_mhz: int, highest_mhz: int) -> None:
        """Keep the SM clocks within these. No driver tells which lock is set.

        :raises NvmlError: refused.
        """
        self._call("nvmlDeviceSetGpuLockedClocks", lowest_mhz, highest_mhz)

    def reset_sm_clocks(self) -> None:
        """Take away any lock of the SM clocks. Raises NvmlError if refused."""
        self._call("nvmlDeviceResetGpuLockedClocks")

    def lock_memory_clock(self, mhz: int) -> None:
        """Keep the memory at one of its supported clocks. Raises NvmlError if refused."""
        self._call("nvmlDeviceSetMemoryLockedClocks", mhz, mhz)

    def reset_memory_clock(self) -> None:
        """Take away any lock of the memory clock. Raises NvmlError if refused."""
        self._call("nvmlDeviceResetMemoryLockedClocks")

    def _call(self, function: str, *arguments: object) -> Any:
        return calls.call(self._where, function, self._handle, *arguments)
