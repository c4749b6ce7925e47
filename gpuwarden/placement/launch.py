# SPDX-License-Identifier: Apache-2.0
"""worker-launch: checks that worker N can run, then becomes the site's interpreter.

A fault that trying again can't mend is named in ``systemctl status`` and ends with EX_CONFIG.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names
from gpuwarden.config import (
    Configuration,
    ConfigurationError,
    digest,
    effective_configuration,
)
from gpuwarden.control.snapshot import SnapshotError, boot_id, read_snapshot
from gpuwarden.control.staleness import why_stale
from gpuwarden.control.states import PlanData, PlannedWorker
from gpuwarden.placement.dropins import REVISION_VARIABLE
from gpuwarden.systemd.former import former_processes, outlasting
from gpuwarden.systemd.notify import Notifier
from gpuwarden.topology.sysfs import SYSFS, read_summary

EXIT_CONFIGURATION = 78  # sysexits.h, EX_CONFIG: the unit doesn't restart on it
MAKE_PLAN = f"systemctl reload-or-restart {names.NUMA_UNIT}"
LEAST_PYTHON = (3, 9)  # the worker runtime's own floor
PROBE_TIMEOUT_SECONDS = 30.0  # an interpreter on a cold network disk takes seconds
# A reload accepts the configuration first and plans then: a worker that systemd restarts meanwhile
# waits for the plan. As long as the planner may wait for the driver, and some.
PATIENCE_SECONDS = 20.0
LOOK_AGAIN_SECONDS = 0.2
LEAVING_SECONDS = 5.0  # for processes of a former life that are on their way out
WORKER_HOST = names.LIBRARY_DIRECTORY / "worker-host"
# They would lead the site's interpreter, or the libraries that it loads, astray.
UNWANTED_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME")


class LaunchError(Exception):
    """Worker N can't run as configured; the text says why and what to do."""


@dataclass(frozen=True)
class Places:
    """Where everything lies; the defaults are the contract's."""

    load: Callable[[], Configuration] = effective_configuration
    plan_file: Path = names.PLAN_FILE
    worker_host: Path = WORKER_HOST
    sysfs: Path = SYSFS
    patience_seconds: float = PATIENCE_SECONDS
    former: Callable[[str], list[int]] = former_processes


def main(argv: list[str], places: Places | None = None) -> int:
    """Become worker ``argv[0]``. Returns only on a fault."""
    places = places or Places()
    try:
        number = _worker_number(argv)
        _check_alone(number, places)
        configuration, plan = _agreed(places)
        worker = _planned(number, plan)
        check_interpreter(configuration.workers.python)
        _check_engine_path(configuration)
        become_worker(worker, configuration, places.worker_host)
    except LaunchError as error:
        Notifier().status(f"cannot start: {error}")
        print(f"worker {' '.join(argv)} cannot start: {error}", file=sys.stderr)
    return EXIT_CONFIGURATION


def settings_of(worker: PlannedWorker, configuration: Configuration) -> dict[str, object]:
    """What the worker's host is told, as JSON values."""
    workers = configuration.workers
    return {
        "number": worker.number,
        "engine": workers.engine,
        "engine_path": list(workers.engine_path),
        "model": workers.model,
        "options": dict(workers.options),
        "gpu_uuid": worker.gpu_uuid,
        "gpu_index": worker.gpu_index,
        "max_batch": workers.max_batch,
        "preprocess_processes": workers.preprocess_processes,
        "preprocess_memory_bytes": workers.preprocess_memory_bytes,
        "max_pixels": workers.max_pixels,
        "drain_seconds": workers.drain_seconds,
        "execution_timeout_seconds": workers.execution_timeout_seconds,
        "load_timeout_seconds": workers.load_timeout_seconds,
        "dispatch_socket": str(names.DISPATCH_SOCKET),
        "inference_priority": worker.inference_priority,
        "log_level": configuration.log.level,
    }


def check_interpreter(python: str) -> tuple[int, int]:
    """The version of the interpreter at ``python``, asked of itself.

    :raises LaunchError: it isn't there, doesn't run, or is too old.
    """
    path = Path(python)
    where = f"[workers] python = {python}"
    if not path.exists():
        raise LaunchError(f"{where}: no such file; set it to the python of the model's environment")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise LaunchError(f"{where}: not a program that user gpuwarden-worker may execute")
    version = _ask_version(python, where)
    if version < LEAST_PYTHON:
        raise LaunchError(
            f"{where}: Python {version[0]}.{version[1]}, but workers need "
            f"{LEAST_PYTHON[0]}.{LEAST_PYTHON[1]} or newer"
        )
    return version


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without what leads the site's interpreter astray."""
    return {name: value for name, value in environment.items() if name not in UNWANTED_VARIABLES}


def sealed_settings(settings: Mapping[str, object]) -> int:
    """A descriptor that holds ``settings`` as JSON, unchangeable, and survives an exec."""
    descriptor = os.memfd_create("gpuwarden-settings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as stream:
        json.dump(settings, stream)
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _worker_number(argv: list[str]) -> int:
    if len(argv) != 1 or not (argv[0].isascii() and argv[0].isdigit()):
        raise LaunchError("expected one argument, the worker's number (medgemma-worker@0)")
    return int(argv[0])


def _check_alone(number: int, places: Places) -> None:
    """One process that hangs in the driver is enough: the next one would hang beside it."""
    unit = names.worker_unit(number)
    left = outlasting(lambda: places.former(unit), min(places.patience_seconds, LEAVING_SECONDS))
    if left:
        pids = ", ".join(str(pid) for pid in left)
        raise LaunchError(
            f"processes of its former life hang in the kernel (PID {pids}), no signal ends them; "
            "it is tried again; if they stay: reboot this node"
        )


def _configuration(places: Places) -> Configuration:
    try:
        return places.load()
    except ConfigurationError as error:
        problems = "; ".join(str(error).splitlines())
        raise LaunchError(f"the configuration is refused: {problems}") from error


def _agreed(places: Places) -> tuple[Configuration, PlanData]:
    """The configuration and a plan that holds for it; waits for one that is being made.

    :raises LaunchError: there is none, or it is stale.
    """
    deadline = time.monotonic() + places.patience_seconds
    while True:
        configuration = _configuration(places)
        try:
            snapshot = read_snapshot(places.plan_file, PlanData)
            machine = read_summary(places.sysfs)
        except SnapshotError as error:
            raise LaunchError(f"no placement plan: {error}; {MAKE_PLAN}") from error
        except (OSError, ValueError) as error:
            raise LaunchError(f"the kernel doesn't say which CPUs there are: {error}") from error
        stale = why_stale(snapshot, boot_id(), digest(configuration), machine)
        if not stale:
            return configuration, snapshot.data
        if time.monotonic() >= deadline:
            raise LaunchError(f"the placement plan is stale: {stale}; {MAKE_PLAN}")
        time.sleep(LOOK_AGAIN_SECONDS)


def _planned(number: int, plan: PlanData) -> PlannedWorker:
    for worker in plan.workers:
        if worker.number == number:
            _check_revision(worker)
            return worker
    planned = ", ".join(str(worker.number) for worker in plan.workers) or "none"
    reason = f" ({plan.reason})" if plan.reason else ""
    raise LaunchError(f"the plan has no worker {number}; planned: {planned}{reason}")


def _check_revision(worker: PlannedWorker) -> None:
    """What systemd has set up is what the plan says: CPUs, memory, devices."""
    found = os.environ.get(REVISION_VARIABLE, "")
    if found != worker.revision:
        raise LaunchError(
            f"systemd has set it up for placement {found or '(none)'}, the plan's is "
            f"{worker.revision or '(none)'}; systemctl daemon-reload, then start it again"
        )


def _check_engine_path(configuration: Configuration) -> None:
    for directory in configuration.workers.engine_path:
        if not os.access(directory, os.R_OK | os.X_OK) or not Path(directory).is_dir():
            raise LaunchError(
                f"[workers] engine_path names {directory}: no directory that user "
                "gpuwarden-worker can read"
            )


def _ask_version(python: str, where: str) -> tuple[int, int]:
    question = "import sys; print(sys.version_info[0], sys.version_info[1])"
    try:
        answer = subprocess.run(
            [python, "-I", "-c", question],
            check=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=clean_environment(os.environ),
            timeout=PROBE_TIMEOUT_SECONDS,
        )
        major, minor = answer.stdout.split()
        return int(major), int(minor)
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{where}: did not answer within {PROBE_TIMEOUT_SECONDS:.0f} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["nothing"])[-1]
        raise LaunchError(
            f"{where}: ended with status {error.returncode} and said: {said}"
        ) from error
    except OSError as error:
        raise LaunchError(f"{where}: can't be executed ({error.strerror})") from error
    except ValueError:
        raise LaunchError(f"{where}: does not answer like a Python interpreter") from None


def become_worker(worker: PlannedWorker, configuration: Configuration, worker_host: Path) -> None:
    """Replace this process by the worker; only standard streams and the settings go along.

    :raises LaunchError: the kernel refuses.
    """
    for link in list(Path("/proc/self/fd").iterdir()):
        if int(link.name) > 2:
            # The folder's own descriptor is closed by now.
            with contextlib.suppress(OSError):
                os.set_inheritable(int(link.name), False)
    descriptor = sealed_settings(settings_of(worker, configuration))
    os.set_inheritable(descriptor, True)
    python = configuration.workers.python
    arguments = [python, "-I", str(worker_host), "--settings-fd", str(descriptor)]
    try:
        os.execve(python, arguments, clean_environment(os.environ))
    except OSError as error:
        raise LaunchError(f"{python}: can't be executed ({error.strerror})") from error
