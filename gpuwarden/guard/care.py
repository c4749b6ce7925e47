# SPDX-License-Identifier: Apache-2.0
"""The guard's care for what runs on the cards: the workers' health, and who else is there."""

from collections.abc import Callable, Mapping

from gpuwarden.control.states import GatewayData, GuardData, PlanData
from gpuwarden.guard.checkup import AcceptedHealth, Checkup
from gpuwarden.guard.findings import Findings
from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.guard.reaper import Reaper
from gpuwarden.guard.scans import read_scans
from gpuwarden.systemd.units import Systemd


class Care:
    """Looks at each look of the supervisor, and acts at each of its turns.

    :param recycle: restarts a worker in an orderly way; False: it is being done something with.
    :ivar reaper: ends processes on request, and before a start.
    """

    def __init__(self, systemd: Systemd, jobs: Jobs, recycle: Callable[[int, str], bool]) -> None:
        self._settings = AcceptedHealth()
        self._checkup = Checkup(jobs, recycle, self._settings)
        self.reaper = Reaper(systemd, jobs)

    def look(
        self,
        plan: PlanData | None,
        units: Mapping[int, UnitFacts],
        gateway: GatewayData | None,
        now_seconds: float,
    ) -> Findings:
        """Take a look; nothing is done about it yet."""
        if plan is None:
            return Findings()
        scans = read_scans(plan.cards)
        ailing, memory = self._checkup.look(plan.workers, units, gateway, scans, now_seconds)
        orphans = self.reaper.look(scans, now_seconds)
        return Findings(ailing, memory, tuple(orphans), scans.doubts)

    def act(self, data: GuardData, now_seconds: float) -> None:
        """Do what follows from the last look."""
        self._checkup.act(data, now_seconds)
        self.reaper.act(reaps=self._settings().reap_orphans)
