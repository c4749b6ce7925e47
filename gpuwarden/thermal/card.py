# SPDX-License-Identifier: Apache-2.0
"""The guarded card as the service sees it: look at it, set it, put it back, let go of it.

Everything here runs in the driver's thread, where any call may hang for ever, and never raises for
what a driver, a disk or somebody else may do. What the last calls have left behind (authority,
reasons, happenings and the like) may be asked for from any thread.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from gpuwarden.control.snapshot import boot_id
from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NvmlError
from gpuwarden.nvml.library import Library
from gpuwarden.systemd.events import Event
from gpuwarden.thermal.actuators import NAMES, NOT_OPEN, Actuators, Options
from gpuwarden.thermal.decision import Authority, Settings
from gpuwarden.thermal.happening import Happening
from gpuwarden.thermal.ledger import Ledger, Teller
from gpuwarden.thermal.observation import Observation
from gpuwarden.thermal.originals import Here
from gpuwarden.thermal.originals_store import OriginalsStore, Places, driver_load
from gpuwarden.thermal.sampler import Sampler

CHECK_EVERY_SECONDS = 1.0


class GuardedCard:
    """The card with index ``gpu_index`` of the plan."""

    def __init__(
        self,
        gpu_index: int,
        plan_file: Path,
        library: Library | None = None,
        *,
        options: Options | None = None,
        places: Places | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._teller = Teller(gpu_index)
        self._sampler = Sampler(gpu_index, plan_file, library, clock, self._teller)
        self._options = options or Options()
        self._places = places
        self._clock = clock
        self._ledger: Ledger | None = None
        self._actuators: Actuators | None = None
        self._opened = 0
        self._opened_with = self._options
        self._checked_at = 0.0
        self._former_writes = 0

    def look(self) -> Observation:
        """Look at the card once, opening it where that is needed; check it once a second."""
        observation = self._sampler.attempt()
        self._guarded(self._keep_up)
        return observation

    def apply(self, settings: Settings) -> tuple[Happening, ...]:
        """Bring the card's own settings about; nothing while it is not open."""
        actuators = self._actuators
        if actuators is not None:
            self._guarded(lambda: actuators.apply(settings))
        return self.happenings()

    def happenings(self) -> tuple[Happening, ...]:
        """What has happened since the last call of this or ``apply``, oldest first."""
        return self._teller.fetch()

    def configure(self, options: Options) -> None:
        """Go by other options from now on."""
        self._options = options  # taken up with the next look, in the driver's thread

    def authority(self) -> Authority:
        """What can be moved on the card now; nothing while it is not open."""
        actuators = self._actuators
        if actuators is None:
            return Authority(max_batch=self._options.max_batch)
        return actuators.authority()

    def reasons(self) -> dict[str, str]:
        """Why an actuator is missing, by its contract name; empty where it is there."""
        actuators = self._actuators
        if actuators is None:
            return dict.fromkeys(NAMES, "") | dict.fromkeys(NAMES[:3], NOT_OPEN)
        return actuators.reasons()

    @property
    def original_watts(self) -> float | None:
        """The administrator's power limit; None while it is not known."""
        actuators = self._actuators
        return None if actuators is None else actuators.original_watts

    @property
    def sm_lock_mhz(self) -> int | None:
        """The highest SM clock that a lock of ours allows; None without one."""
        actuators = self._actuators
        return None if actuators is None else actuators.sm_lock_mhz

    @property
    def writes(self) -> int:
        """How often a setting was changed since the start."""
        actuators = self._actuators
        return self._former_writes + (0 if actuators is None else actuators.writes)

    def restore(self, keep_safe: bool = False) -> tuple[Happening, ...]:
        """Put everything back, read back; says what could not be.

        :param keep_safe: the card is still hot: leave what cools it, and say so.
        """
        actuators = self._actuators
        if actuators is None:
            if self._ledger is not None and not self._ledger.record.holds_nothing_of_ours:
                text = "it is not there: what this guard has set on it can't be put back now"
                self._teller.tell(Event.THERMAL_REFUSED, text, logging.WARNING, REASON=NOT_OPEN)
        elif not (keep_safe and actuators.keep()):
            self._guarded(actuators.restore)
        return self.happenings()

    def close(self) -> None:
        """Let go of card and driver, so that it can be reset; ``look`` opens them again."""
        self._drop()
        self._sampler.close()

    def _keep_up(self) -> None:
        if self._sampler.card is None:
            self._drop()
            return
        is_current = self._opened == self._sampler.opened and self._opened_with == self._options
        if self._actuators is None or not is_current:
            self._open()
        now = self._clock()
        if self._actuators is not None and now - self._checked_at >= CHECK_EVERY_SECONDS:
            self._checked_at = now
            self._actuators.check()

    def _open(self) -> None:
        """Learn the card's means and originals anew: after a reset they may be others."""
        self._drop()
        card, limits = self._sampler.card, self._sampler.limits
        assert card is not None, "asked before"
        self._opened, self._opened_with = self._sampler.opened, self._options
        uuid = self._sampler.name.uuid
        if self._ledger is None or self._ledger.record.uuid != uuid:
            store = OriginalsStore(uuid, self._places)
            self._ledger = Ledger(store, self._teller, lambda: Here(uuid, boot_id(), driver_load()))
        self._actuators = Actuators(
            card.control, limits, self._ledger, self._teller, self._opened_with, self._clock
        )

    def _drop(self) -> None:
        if self._actuators is not None:
            self._former_writes += self._actuators.writes
        self._actuators = None

    def _guarded(self, act: Callable[[], object]) -> None:
        """Do it; a card or driver that is gone is closed and looked for again."""
        try:
            act()
        except (CardLostError, DriverMissingError):
            self.close()  # the next look says so
        except NvmlError as error:
            self._teller.tell(Event.THERMAL_REFUSED, str(error), logging.ERROR, REASON=str(error))
