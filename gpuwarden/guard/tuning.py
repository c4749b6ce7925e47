# SPDX-License-Identifier: Apache-2.0
"""The host's tuning as the guard has it done: by units of its own, and it waits for none of them.

What comes of it is read from what those units publish, and heard from tuned itself where somebody
else switches its profile.
"""

from collections.abc import Awaitable, Callable, Collection

from gpuwarden import names
from gpuwarden.bus.bus import Bus
from gpuwarden.bus.signals import Signal
from gpuwarden.config import accepted_configuration
from gpuwarden.config.tuning import TuningSettings
from gpuwarden.control.host import TuningData
from gpuwarden.control.snapshot import (
    SnapshotError,
    boot_id,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.profiles import known_profiles
from gpuwarden.systemd.units import JobError, Systemd

JOB_SECONDS = 240.0  # TimeoutStartSec= of the units
UP = frozenset({"active", "activating", "reloading", "deactivating"})


def accepted_tuning() -> TuningSettings:
    """What is configured now."""
    configuration = accepted_configuration()
    return configuration.tuning if configuration else TuningSettings()


class HostTuning:
    """Has the host tuned or left alone, and knows how it is.

    :param changed: called when tuned tells of another profile.
    """

    def __init__(
        self,
        bus: Bus,
        systemd: Systemd,
        changed: Callable[[], None],
        settings: Callable[[], TuningSettings] = accepted_tuning,
        profiles: Callable[[], Collection[str]] = known_profiles,
    ) -> None:
        self._bus = bus
        self._systemd = systemd
        self._changed = changed
        self._settings = settings
        self._profiles = profiles
        self._is_wanted = False
        self._told = ""
        self._told_nanoseconds = 0

    async def begin(self) -> None:
        """Listen to tuned, whether it runs or not. Raises BusError."""
        await self._bus.subscribe(
            names.TUNED_BUS_NAME,
            names.TUNED_OBJECT,
            names.TUNED_INTERFACE,
            names.TUNED_PROFILE_CHANGED,
            self._hear,
        )

    async def start(self) -> None:
        """Have the host as the configuration wants it; one that is tuned so already stays as it is.

        :raises JobError: it could not be done; the text says why.
        :raises BusError: systemd can't be asked.
        """
        await self._apply(self._systemd.start if self._is_good() else self._systemd.reload)

    async def reload(self) -> None:
        """Have it as the configuration and the hour want it now. Raises JobError or BusError."""
        await self._apply(self._systemd.reload)

    async def _apply(self, tune: Callable[[str, float], Awaitable[None]]) -> None:
        self._is_wanted = self._settings().enabled
        if self._is_wanted:
            await self._job(tune(names.TUNING_UNIT, JOB_SECONDS))
            return
        unit = (await self._systemd.properties(names.TUNING_UNIT)).unit
        if unit.get("ActiveState") in UP:
            await self._job(self._systemd.stop(names.TUNING_UNIT, JOB_SECONDS))
        elif names.TUNING_RECORD_FILE.exists():  # left by a power cut, or a start by hand
            await self._job(self._systemd.start(names.tuning_unit("off"), JOB_SECONDS))

    def look(self) -> TuningData | None:
        """How the host is tuned, by now; None where it isn't to be."""
        return self._published() if self._is_wanted else None

    def _published(self) -> TuningData | None:
        try:
            snapshot = read_snapshot(names.TUNING_STATE_FILE, TuningData)
        except SnapshotError:
            return None  # not tuned yet
        if snapshot.boot_id != boot_id():
            return None
        data = snapshot.data
        if data.untuned:
            return data
        is_newer = self._told_nanoseconds > snapshot.boottime_nanoseconds
        profile = self._told if is_newer else data.profile
        # A tuned that has ended has taken everything back.
        in_force = profile if self._bus.owner(names.TUNED_BUS_NAME) else ""
        return data.model_copy(update={"profile": in_force})

    def _is_good(self) -> bool:
        """Whether one of the configured profiles is in force, and the other could be."""
        settings, now = self._settings(), self._published()
        wanted = {settings.day_profile, settings.night_profile}
        is_set = now is not None and now.profile in wanted and not now.fault
        return is_set and wanted <= set(self._profiles())

    async def _job(self, work: Awaitable[None]) -> None:
        try:
            await work
        except JobError as error:
            raise JobError(self._fault() or str(error)) from error

    def _fault(self) -> str:
        """What the unit itself said was wrong."""
        try:
            return read_snapshot(names.TUNING_STATE_FILE, TuningData).data.fault
        except SnapshotError:
            return ""

    def _hear(self, signal: Signal) -> None:
        """profile_changed: the profiles, whether it worked, and why not."""
        profiles, worked, _ = signal.body
        if worked:
            self._told, self._told_nanoseconds = str(profiles), boottime_nanoseconds()
            self._changed()
