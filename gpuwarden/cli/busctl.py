# SPDX-License-Identifier: Apache-2.0
"""Calls of our service's bus methods, through systemd's busctl."""

import json
import os
import subprocess
from typing import Any

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.working import working

TIMEOUT_SECONDS = 10
ORDER_TIMEOUT_SECONDS = 60  # polkit may ask its user for a password first
CONNECT_SECONDS = 5  # connecting has no timeout of its own

COULD_NOT = "the service could not answer"
_OFF_THE_BUS = ("does not exist", "not provided by any .service files", "has no owner")
_NO_BUS = "Failed to connect to bus"
_FAILED = "Call failed: "
_MISSING = "busctl is missing; it belongs to systemd: apt install systemd"
_TELLS = "gpuwarden logs -n 20"


class SilentError(CommandError):
    """Nobody answers: what the service has published is all that can be had."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.UNREACHABLE)


class NotRunningError(SilentError):
    """The service is not on the bus, or there is no bus."""


def call(
    path: str,
    interface: str,
    method: str,
    *arguments: str,
    timeout_seconds: float | None = None,
    denied: str = "",
    failed: str = COULD_NOT,
) -> list[Any]:
    """What a method of our service answers, as busctl writes it in JSON (NaN is null).

    :param arguments: a D-Bus signature and as many values; nothing for a method without any.
    :param denied: what to say when access is denied; "": who may read.
    :param failed: what to say before the reason where the method fails.
    :raises NotRunningError: nothing of our name on the bus, or no bus.
    :raises SilentError: no answer in time.
    :raises CommandError: access denied (UNREACHABLE); the method failed (WRONG).
    """
    limit_seconds = TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
    options = ["--system", "--json=short", "--auto-start=no", f"--timeout={limit_seconds}"]
    words = ["busctl", *options, "call", names.BUS_NAME, path, interface, method, *arguments]
    try:
        with working(f"waiting for {names.GUARD_UNIT}"):
            finished = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit_seconds + CONNECT_SECONDS,
                env={**os.environ, "LC_ALL": "C.UTF-8"},  # errors are told apart by their words
                check=False,
            )
    except FileNotFoundError:
        raise CommandError(_MISSING, Exit.UNREACHABLE) from None
    except subprocess.TimeoutExpired:
        raise SilentError(_too_slow(limit_seconds)) from None
    if finished.returncode != 0:
        message = finished.stderr.strip()
        raise _translated(message, limit_seconds, denied or _who_may_read(), failed)
    return _data(finished.stdout)


def _data(answer: str) -> list[Any]:
    if not answer.strip():  # a method that answers nothing
        return []
    try:
        data = json.loads(answer)["data"]
    except (ValueError, LookupError, TypeError) as error:
        raise CommandError(
            f"busctl answered what is no JSON: {error} ({_TELLS})", Exit.WRONG
        ) from error
    return data if isinstance(data, list) else [data]


def _translated(message: str, limit_seconds: float, denied: str, failed: str) -> CommandError:
    """The error that busctl's words mean. It gives no error names."""
    if _NO_BUS in message:
        return NotRunningError(f"no system bus ({message.removeprefix(f'{_NO_BUS}: ')})")
    if any(words in message for words in _OFF_THE_BUS):
        return NotRunningError(
            f"{names.GUARD_UNIT} is not running (systemctl start {names.GUARD_UNIT})"
        )
    if "Access denied" in message:
        return CommandError(denied, Exit.UNREACHABLE)
    if "timed out" in message:
        return SilentError(_too_slow(limit_seconds))
    hint = f" ({_TELLS})" if failed == COULD_NOT else ""
    return CommandError(f"{failed}: {message.removeprefix(_FAILED)}{hint}", Exit.WRONG)


def _too_slow(limit_seconds: float) -> str:
    return (
        f"no answer from {names.GUARD_UNIT} within {limit_seconds:g} s "
        f"(journalctl -u {names.GUARD_UNIT} -n 50)"
    )


def _who_may_read() -> str:
    return (
        f"access to {names.BUS_NAME} denied: only root and members of the group "
        f"{names.OPERATORS_GROUP} may ask. As root: adduser {_user_name()} "
        f"{names.OPERATORS_GROUP}, then log in again"
    )


def _user_name() -> str:
    return os.environ.get("USER") or str(os.getuid())
