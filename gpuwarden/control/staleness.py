# SPDX-License-Identifier: Apache-2.0
"""Whether the placement plan still holds: for this boot, this configuration, these CPUs. Pure."""

from gpuwarden.control.snapshot import Snapshot
from gpuwarden.control.states import PlanData


def why_stale(
    snapshot: Snapshot[PlanData], boot: str, configuration_digest: str, machine: str
) -> str:
    """What the plan was made for that is no longer so; empty where it holds.

    :param machine: CPUs and nodes as they are now, in the plan's own words.
    """
    plan = snapshot.data
    if snapshot.boot_id != boot:
        return "it is of another boot"
    if plan.configuration_digest != configuration_digest:
        return "it was made for another configuration"
    if plan.machine and plan.machine != machine:
        return f"it was made for {plan.machine}, and now there is {machine}"
    return ""
