"""What the running service says of itself, over the bus or else in its last published state."""

from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names
from gpuwarden.cli import busctl
from gpuwarden.cli.busctl import NotRunningError
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.control.snapshot import SnapshotError, boottime_nanoseconds, read_snapshot
from gpuwarden.control.states import GuardData


@dataclass(frozen=True)
class Known:
    """A status and, when it doesn't come from the running service, where it comes from."""

    data: GuardData
    caveat: str = ""

    @property
    def is_live(self) -> bool:
        """Whether the running service has just said so."""
        return not self.caveat


def get_status() -> GuardData:
    """Manager.GetStatus of the running service.

    :raises NotRunningError: nothing of that name on the bus, or no bus.
    :raises CommandError: access denied, no answer in time, an answer of another version.
    """
    answer = busctl.call(names.ROOT_OBJECT, f"{names.BUS_NAME}.Manager", "GetStatus")
    try:
        return GuardData.model_validate_json(answer[0])
    except (ValueError, LookupError, TypeError) as error:
        reason = str(error).splitlines()[0]
        message = (
            f"the service's answer is not this command's version of a status ({reason}). "
            f"After an upgrade: systemctl restart {names.GUARD_UNIT}"
        )
        raise CommandError(message, Exit.WRONG) from error


def get_status_or_last(state_file: Path) -> Known:
    """The live status; while the service is off the bus, the last one that it published.

    :raises CommandError: as :func:`get_status`, and when there is no last status either.
    """
    try:
        return Known(get_status())
    except NotRunningError as error:
        try:
            snapshot = read_snapshot(state_file, GuardData)
        except SnapshotError as missing:
            raise NotRunningError(f"{error}; nor is there a last state: {missing}") from None
        age_seconds = snapshot.age_seconds(boottime_nanoseconds())
        fresh = snapshot.is_fresh(boottime_nanoseconds())
        age = f"{age_seconds:.0f} s ago" if age_seconds >= 0 else "before the last boot"
        kind = "its state" if fresh else "its LAST KNOWN state"
        return Known(snapshot.data, f"{error}. Below is {kind}, written {age}")
