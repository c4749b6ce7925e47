# SPDX-License-Identifier: Apache-2.0
"""The running lease on disk: it outlives its thermal guard, but not the boot."""

import logging
from pathlib import Path

from pydantic import ValidationError

from gpuwarden.control.lease import Lease
from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds, write_atomically

log = logging.getLogger(__name__)


class LeaseStore:
    """One card's lease file under /run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Lease | None:
        """The lease that still runs. A file that can't be read is said and counts as none."""
        try:
            lease = Lease.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("%s can't be read, no override runs: %s", self.path, error)
            return None
        if lease.boot_id != boot_id() or not lease.runs(boottime_nanoseconds()):
            self.clear()
            return None
        return lease

    def peek(self) -> Lease | None:
        """The lease that runs, for whoever only goes by it: changes nothing, says nothing."""
        try:
            lease = Lease.model_validate_json(self.path.read_bytes())
        except (OSError, ValidationError):
            return None  # its owner says so
        runs = lease.boot_id == boot_id() and lease.runs(boottime_nanoseconds())
        return lease if runs else None

    def save(self, lease: Lease) -> None:
        """Keep it. Raises OSError."""
        write_atomically(self.path, lease.model_dump_json().encode(), mode=0o600)

    def clear(self) -> None:
        """Forget it; a file that can't be removed ends by its own time."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s can't be removed: %s", self.path, error.strerror)
