# SPDX-License-Identifier: Apache-2.0
"""A card, its administrator, its driver and its disk, stopped between any two steps."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gpuwarden.nvml.control import CardControl, ClockRange
from gpuwarden.nvml.errors import NvmlError, translate
from gpuwarden.nvml.limits import CardLimits
from gpuwarden.nvml.vocabulary import Architecture
from gpuwarden.thermal.actuators import Actuators, Options
from gpuwarden.thermal.ledger import Ledger, Teller
from gpuwarden.thermal.originals import Here
from gpuwarden.thermal.originals_store import Disk, OriginalsStore, Places

UUID = "GPU-model"
DEFAULT_WATTS, LEAST_WATTS, MOST_WATTS = 350, 100, 450
CLOCKS = ClockRange(300, 1800, 15)
MEMORY_CLOCKS_MHZ = (3000, 2000, 400)
LIMITS = CardLimits(
    maximum_operating_celsius=85,
    slowdown_celsius=90,
    shutdown_celsius=95,
    power_minimum_watts=LEAST_WATTS,
    power_maximum_watts=MOST_WATTS,
    power_default_watts=DEFAULT_WATTS,
)


class Killed(BaseException):
    """The guard's process ends here, whatever it was doing."""


class World:
    """What outlives the guard: the card's settings, the files, what the administrator wants.

    :ivar wanted_milliwatts: what the administrator has set last, or the driver's default.
    :ivar rounding_milliwatts: the board makes whole multiples of it.
    """

    def __init__(self, folder: Path, rounding_milliwatts: int = 1) -> None:
        self.places = Places(folder / "disk", folder / "run")
        self.rounding_milliwatts = rounding_milliwatts
        self.boot, self.load = 1, 1
        self.load_is_seen = True
        self.limit_milliwatts = self.wanted_milliwatts = DEFAULT_WATTS * 1000
        self.sm_lock: int | None = None
        self.memory_lock: int | None = None
        self.disk_is_full = False
        self.at_step: dict[int, Callable[[], None]] = {}
        self.steps = 0

    def here(self) -> Here:
        return Here(UUID, f"boot-{self.boot}", f"{self.load}" if self.load_is_seen else "")

    def step(self) -> None:
        """A moment at which something else may happen."""
        self.steps += 1
        happens = self.at_step.pop(self.steps, None)
        if happens is not None:
            happens()

    def kill(self) -> None:
        raise Killed

    def tear(self, path: Path) -> None:
        """Leave half of a file."""
        if path.exists():
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])

    def round(self, milliwatts: int) -> int:
        return milliwatts // self.rounding_milliwatts * self.rounding_milliwatts

    def set_from_outside(self, watts: int) -> None:
        self.limit_milliwatts = self.wanted_milliwatts = self.round(watts * 1000)

    def forget_settings(self) -> None:
        self.limit_milliwatts = self.wanted_milliwatts = DEFAULT_WATTS * 1000
        self.sm_lock = self.memory_lock = None

    def reload_driver(self) -> None:
        self.load += 1
        self.forget_settings()

    def reboot(self) -> None:
        self.boot += 1
        shutil.rmtree(self.places.run, ignore_errors=True)
        self.reload_driver()


class ModelCard(CardControl):
    """The card as the guard reaches it.

    :ivar fails: functions by name that raise this error instead of doing anything.
    :ivar runs_at_mhz: the SM clock, whatever it is locked to.
    """

    def __init__(self, world: World) -> None:
        super().__init__("card model", None)
        self.world = world
        self.fails: dict[str, int] = {}
        self.calls: list[str] = []
        self.runs_at_mhz: int | None = None

    def power_limit_milliwatts(self) -> int:
        self._begin("power_limit_milliwatts")
        return self.world.limit_milliwatts

    def set_power_limit(self, milliwatts: int) -> int:
        world = self.world
        self._begin("set_power_limit")
        made = self.makes(milliwatts)
        assert made <= world.wanted_milliwatts, "above the administrator's limit"
        world.limit_milliwatts = made
        world.step()
        return self.power_limit_milliwatts()

    def sm_clocks(self) -> ClockRange | None:
        return CLOCKS

    def memory_clocks_mhz(self) -> tuple[int, ...]:
        return MEMORY_CLOCKS_MHZ

    def is_at_least(self, generation: Architecture) -> bool:
        return True

    def sm_clock_mhz(self) -> int:
        return self.runs_at_mhz or self.world.sm_lock or CLOCKS.highest_mhz

    def memory_clock_mhz(self) -> int:
        return self.world.memory_lock or MEMORY_CLOCKS_MHZ[0]

    def lock_sm_clocks(self, lowest_mhz: int, highest_mhz: int) -> None:
        self._begin("lock_sm_clocks")
        self.world.sm_lock = highest_mhz
        self.world.step()

    def reset_sm_clocks(self) -> None:
        self._begin("reset_sm_clocks")
        self.world.sm_lock = None
        self.world.step()

    def lock_memory_clock(self, mhz: int) -> None:
        self._begin("lock_memory_clock")
        self.world.memory_lock = mhz
        self.world.step()

    def reset_memory_clock(self) -> None:
        self._begin("reset_memory_clock")
        self.world.memory_lock = None
        self.world.step()

    def makes(self, milliwatts: int) -> int:
        """What the board makes of a limit that it is asked for."""
        return self.world.round(milliwatts)

    def _begin(self, function: str) -> None:
        self.calls.append(function)
        if function in self.fails:
            raise self.error(self.fails[function], function)

    @staticmethod
    def error(code: int, function: str) -> NvmlError:
        return translate(code, f"card model: {function}")


class SteppedDisk(Disk):
    """Real files, with a step before and after all that changes them; a write may be half done."""

    def __init__(self, world: World) -> None:
        self._world = world

    def write(self, path: Path, content: bytes) -> None:
        self._world.step()
        if self._world.disk_is_full and path.parent == self._world.places.disk:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_bytes(content[: len(content) // 2])
        self._world.step()
        super().write(path, content)
        self._world.step()

    def rename(self, old: Path, new: Path) -> None:
        self._world.step()
        super().rename(old, new)
        self._world.step()

    def remove(self, path: Path) -> None:
        self._world.step()
        super().remove(path)
        self._world.step()


class Guard:
    """One life of a guard of the card."""

    def __init__(
        self,
        world: World,
        options: Options | None = None,
        fails: dict[str, int] | None = None,
    ) -> None:
        self.world = world
        self.card = ModelCard(world)
        self.card.fails = fails or {}
        self.teller = Teller(0)
        self.now = 1000.0
        self.store = OriginalsStore(UUID, world.places, SteppedDisk(world))
        self.ledger = Ledger(self.store, self.teller, world.here)
        self.options = options or Options(memory_clock_lock=True)
        self.open()

    def open(self) -> None:
        """Open the card, at the start or again after it was lost."""
        self.actuators = Actuators(
            self.card, LIMITS, self.ledger, self.teller, self.options, lambda: self.now
        )

    @property
    def original_milliwatts(self) -> int | None:
        return self.ledger.record.original_milliwatts
