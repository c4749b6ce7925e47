# SPDX-License-Identifier: Apache-2.0
"""What the running service says of itself over the bus, or else what its parts have published."""

from gpuwarden import names
from gpuwarden.cli import busctl
from gpuwarden.cli.busctl import SilentError
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.known import Known
from gpuwarden.cli.working import working
from gpuwarden.control.states import GuardData


def get_status() -> GuardData:
    """Manager.GetStatus of the running service.

    :raises NotRunningError: nothing of that name on the bus, or no bus.
    :raises SilentError: no answer in time.
    :raises CommandError: access denied, an answer of another version.
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


def get_status_or_last() -> Known:
    """The live status; while the service is silent, what there is without it.

    :raises CommandError: as :func:`get_status`, and when there is nothing without it either.
    """
    try:
        return Known(get_status())
    except SilentError as error:
        # Only now: the supervisor's own parts take as long to load as the rest of the command.
        from gpuwarden.cli.remains import remains  # noqa: PLC0415

        with working("asking its parts"):
            return remains(str(error))
