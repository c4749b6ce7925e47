# SPDX-License-Identifier: Apache-2.0
"""medgemma-hook@HOOK-GPU: tells another program of a card's state, once, without privileges.

It reads the configuration and the card's state by itself: nothing that anybody says reaches its
command line but two numbers.
"""

import json
import logging
import os
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from gpuwarden import __version__, names
from gpuwarden.config import Configuration, ConfigurationError, effective_configuration
from gpuwarden.config.thermal import HookSettings
from gpuwarden.control.snapshot import SnapshotError, boottime_nanoseconds, read_snapshot
from gpuwarden.control.states import ThermalData
from gpuwarden.guard.hooks import TOLD_EXIT_STATUS, hook_name
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.text import one_line
from gpuwarden.values import ThermalState

log = logging.getLogger(__name__)

EXIT_USAGE = 2
SILENT = "its thermal guard says nothing"
_INSTANCE = re.compile(r"(?P<hook>[0-9]{1,4})-(?P<gpu>[0-9]{1,4})")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HookError(Exception):
    """The hook did not do what it is for; the text says why."""


@dataclass(frozen=True)
class Places:
    """Where everything lies; the defaults are the contract's."""

    load: Callable[[], Configuration] = effective_configuration
    snapshot_file: Callable[[int], Path] = names.thermal_snapshot_file


@dataclass(frozen=True)
class Notice:
    """What another program is told.

    :ivar temperature_celsius: of the die; None where it is unknown.
    """

    gpu: int
    gpu_uuid: str
    state: ThermalState
    temperature_celsius: float | None
    reason: str

    def document(self) -> bytes:
        """The body of a POST."""
        return json.dumps(
            {
                "gpu": self.gpu,
                "gpu_uuid": self.gpu_uuid,
                "state": self.state.value,
                "temperature_celsius": self.temperature_celsius,
                "reason": self.reason,
            }
        ).encode()

    def environment(self) -> dict[str, str]:
        """The environment of a command; what is unknown is empty."""
        celsius = self.temperature_celsius
        return {
            "GPUWARDEN_GPU": str(self.gpu),
            "GPUWARDEN_GPU_UUID": one_line(self.gpu_uuid),
            "GPUWARDEN_STATE": self.state.value,
            "GPUWARDEN_TEMPERATURE_CELSIUS": "" if celsius is None else f"{celsius:g}",
            "GPUWARDEN_REASON": one_line(self.reason),
        }


def main(argv: list[str], places: Places | None = None) -> int:
    """Run the hook of the instance ``argv[0]``; 0 also where its card has left the state again."""
    places = places or Places()
    set_up_logging("info")
    instance = _INSTANCE.fullmatch(argv[0]) if len(argv) == 1 else None
    if instance is None:
        log.error("hook takes one argument, HOOK-GPU as numbers; found %r", " ".join(argv))
        return EXIT_USAGE
    number, gpu = int(instance["hook"]), int(instance["gpu"])
    return Hook(number, gpu).run(places)


@dataclass
class Hook:
    """One run of one hook for one card; it learns its name and what it is to tell on the way."""

    number: int
    gpu: int
    settings: HookSettings | None = None
    notice: Notice | None = None

    def run(self, places: Places) -> int:
        """Tell what there is to tell, and the journal how it went. Gives the exit status."""
        try:
            outcome = self._tell(places)
        except (HookError, ConfigurationError) as error:
            self._tell_failure(str(error).splitlines()[0])
            return TOLD_EXIT_STATUS
        log.info("%s for GPU %d: %s", hook_name(self.number, self.settings), self.gpu, outcome)
        return 0

    def _tell(self, places: Places) -> str:
        hooks = places.load().thermal.hooks
        if self.number >= len(hooks):
            raise HookError("there is no such hook in the configuration any more")
        hook = self.settings = hooks[self.number]
        notice = self.notice = read_notice(self.gpu, places.snapshot_file(self.gpu))
        if notice.state.value not in hook.on:
            return f"nothing to tell, the card is {notice.state.value} by now"
        if hook.post is not None:
            post(hook.post, notice, hook.timeout_seconds)
        if hook.command is not None:
            run(hook.command, notice, hook.timeout_seconds)
        return f"told that the card is {notice.state.value}"

    def _tell_failure(self, reason: str) -> None:
        notice = self.notice
        known = {"GPU_UUID": notice.gpu_uuid, "STATE_NEW": notice.state.value} if notice else {}
        tell(
            Event.HOOK_FAILED,
            f"{hook_name(self.number, self.settings)} for GPU {self.gpu} failed: {reason}",
            logging.ERROR,
            GPU=self.gpu,
            REASON=reason,
            **known,
        )


def read_notice(gpu: int, file: Path) -> Notice:
    """What the card's guard says now; a guard that says nothing leaves the card blind."""
    try:
        snapshot = read_snapshot(file, ThermalData)
    except SnapshotError:
        return Notice(gpu, "", ThermalState.BLIND, None, SILENT)
    data = snapshot.data
    if not snapshot.is_fresh(boottime_nanoseconds()):
        return Notice(gpu, data.uuid, ThermalState.BLIND, None, SILENT)
    return Notice(gpu, data.uuid, data.state, data.temperature_celsius, data.reason)


def post(url: str, notice: Notice, timeout_seconds: float) -> None:
    """POST the notice; any answer of 2xx is good.

    :raises HookError: no answer in time, or another one.
    """
    outcome: list[HookError | None] = []
    # In a thread, because a name server and a server that drips each take their own time; one that
    # is late is left behind with the process.
    worker = threading.Thread(target=lambda: outcome.append(_try_post(url, notice)), daemon=True)
    worker.start()
    worker.join(timeout_seconds)
    if not outcome:
        raise HookError(f"no answer in {timeout_seconds:g} s")
    if outcome[0] is not None:
        raise outcome[0]


def _try_post(url: str, notice: Notice) -> HookError | None:
    headers = {"Content-Type": "application/json", "User-Agent": f"gpuwarden/{__version__}"}
    request = urllib.request.Request(url, notice.document(), headers, method="POST")
    try:
        with _opener().open(request):
            return None
    except urllib.error.HTTPError as error:
        return HookError(f"it answered {error.code} {one_line(str(error.reason))}")
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a host that is no name
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, PermissionError):
            return HookError(
                "medgemma-hook@.service may not reach that address: allow it with `systemctl edit "
                "medgemma-hook@.service`, IPAddressAllow="
            )
        return HookError(one_line(str(cause)) or type(cause).__name__)


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone: no redirect to elsewhere, no proxy from an environment, no file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def run(command: Sequence[str], notice: Notice, timeout_seconds: float) -> None:
    """Run the program with the notice in its environment; exit status 0 is good.

    :raises HookError: it can't be run, failed, or took too long and was killed with its children.
    """
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", **notice.environment()}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, to be killed as one
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise HookError(f"it can't be run: {reason}") from error
    try:
        status = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise HookError(f"not done in {timeout_seconds:g} s, so it was killed") from None
    if status < 0:
        raise HookError(f"it was killed by signal {-status}")
    if status:
        raise HookError(f"exit status {status}")
