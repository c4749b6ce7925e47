"""What the running service says of itself, over the bus or else in its last published state."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.control.snapshot import SnapshotError, boottime_nanoseconds, read_snapshot
from gpuwarden.control.states import GuardData

BUS_TIMEOUT_SECONDS = 10
BUSCTL_TIMEOUT_SECONDS = BUS_TIMEOUT_SECONDS + 5  # connecting has no timeout of its own

_OFF_THE_BUS = ("does not exist", "not provided by any .service files", "has no owner")
_NO_BUS = "Failed to connect to bus"


class NotRunningError(CommandError):
    """The service is not on the bus, or there is no bus."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.UNREACHABLE)


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
    answer = _call_busctl()
    try:
        return GuardData.model_validate_json(json.loads(answer)["data"][0])
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


def _call_busctl() -> str:
    call = [names.BUS_NAME, names.ROOT_OBJECT, f"{names.BUS_NAME}.Manager", "GetStatus"]
    options = ["--system", "--json=short", "--auto-start=no", f"--timeout={BUS_TIMEOUT_SECONDS}"]
    try:
        finished = subprocess.run(
            ["busctl", *options, "call", *call],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUSCTL_TIMEOUT_SECONDS,
            env={**os.environ, "LC_ALL": "C.UTF-8"},  # its errors are told apart by their words
            check=False,
        )
    except FileNotFoundError:
        message = "busctl is missing; it belongs to systemd: apt install systemd"
        raise CommandError(message, Exit.UNREACHABLE) from None
    except subprocess.TimeoutExpired:
        raise CommandError(_too_slow(), Exit.UNREACHABLE) from None
    if finished.returncode != 0:
        raise _translated(finished.stderr.strip())
    return finished.stdout


def _translated(message: str) -> CommandError:
    """The error that busctl's words mean. It gives no error names."""
    if _NO_BUS in message:
        return NotRunningError(f"no system bus ({message.removeprefix(f'{_NO_BUS}: ')})")
    if any(words in message for words in _OFF_THE_BUS):
        return NotRunningError(
            f"{names.GUARD_UNIT} is not running (systemctl start {names.GUARD_UNIT})"
        )
    if "Access denied" in message:
        text = (
            f"access to {names.BUS_NAME} denied: only root and members of the group "
            f"{names.OPERATORS_GROUP} may ask. As root: adduser {_user_name()} "
            f"{names.OPERATORS_GROUP}, then log in again"
        )
        return CommandError(text, Exit.UNREACHABLE)
    if "timed out" in message:
        return CommandError(_too_slow(), Exit.UNREACHABLE)
    return CommandError(f"the service could not answer: {message}", Exit.WRONG)


def _too_slow() -> str:
    return (
        f"no answer from {names.GUARD_UNIT} within {BUS_TIMEOUT_SECONDS} s "
        f"(journalctl -u {names.GUARD_UNIT} -n 50)"
    )


def _user_name() -> str:
    return os.environ.get("USER") or str(os.getuid())
