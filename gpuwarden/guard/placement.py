# SPDX-License-Identifier: Apache-2.0
"""The placement plan that the guard goes by, and whether it still holds."""

import logging

from gpuwarden.control.snapshot import Snapshot, SnapshotError, boot_id, read_snapshot
from gpuwarden.control.staleness import why_stale
from gpuwarden.control.states import PlanData
from gpuwarden.names import PLAN_FILE
from gpuwarden.topology.sysfs import read_summary

log = logging.getLogger(__name__)


class Placement:
    """The plan as last read.

    :ivar accepted_digest: of the configuration that a plan must have been made for.
    """

    def __init__(self) -> None:
        self.accepted_digest = ""
        self._snapshot: Snapshot[PlanData] | None = None

    @property
    def plan(self) -> PlanData | None:
        """The plan; None while there is none."""
        return self._snapshot.data if self._snapshot else None

    def read(self) -> bool:
        """Read it anew; one that can't be read leaves the former. True where it has changed."""
        try:
            snapshot = read_snapshot(PLAN_FILE, PlanData)
        except SnapshotError as error:
            if self._snapshot is not None:
                log.warning("keeping the former plan: %s", error)
            return False
        former, self._snapshot = self.plan, snapshot
        return former != snapshot.data

    def fault(self) -> str:
        """Why no worker may be started by it; empty where it holds."""
        if self._snapshot is None:
            return "there is no placement plan"
        try:
            machine = read_summary()
        except (OSError, ValueError) as error:
            return f"the kernel doesn't say which CPUs there are: {error}"
        stale = why_stale(self._snapshot, boot_id(), self.accepted_digest, machine)
        return f"the placement plan is stale: {stale}" if stale else ""
