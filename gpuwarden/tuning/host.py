# SPDX-License-Identifier: Apache-2.0
"""The host's tuner as a service: whether there is one, and having it run."""

from gpuwarden import names
from gpuwarden.bus.errors import BusError
from gpuwarden.systemd.units import JobError, Systemd
from gpuwarden.tuning.tuned import TunedError

START_SECONDS = 60.0  # a Python program that looks at every device first


class UntunableError(Exception):
    """This host can't be tuned, and nothing is wrong with that; the text says why."""


async def is_running(systemd: Systemd) -> bool:
    """Whether tuned runs.

    :raises UntunableError: there is none, or another tuner runs that tuned would end.
    """
    try:
        unit = (await systemd.properties(names.TUNED_UNIT)).unit
    except BusError as error:
        raise TunedError(f"systemd can't be asked about {names.TUNED_UNIT}: {error}") from error
    if unit.get("LoadState") == "masked":
        raise UntunableError("tuned is masked (systemctl unmask tuned)")
    if unit.get("LoadState") != "loaded":
        raise UntunableError("tuned is not installed (apt install tuned)")
    if unit.get("ActiveState") in ("active", "reloading"):
        return True
    rivals = [name for name in unit.get("Conflicts") or [] if name.endswith(".service")]
    await _require_no_rival(systemd, rivals)
    return False


async def start(systemd: Systemd) -> None:
    """Have tuned run. Raises TunedError."""
    try:
        await systemd.start(names.TUNED_UNIT, START_SECONDS)
    except (JobError, BusError) as error:
        raise TunedError(f"tuned does not start (systemctl status tuned): {error}") from error


async def _require_no_rival(systemd: Systemd, rivals: list[str]) -> None:
    """tuned's unit names whom it can't run beside (power-profiles-daemon, tlp): its start would
    end them, which nobody has asked for."""
    for rival in rivals:
        try:
            state = (await systemd.properties(rival)).unit.get("ActiveState")
        except BusError as error:
            raise TunedError(f"systemd can't be asked about {rival}: {error}") from error
        if state in ("active", "activating", "reloading"):
            name = rival.removesuffix(".service")
            raise UntunableError(
                f"{name} tunes this host, and tuned can't run beside it "
                f"(systemctl disable --now {name})"
            )
