# SPDX-License-Identifier: Apache-2.0
"""Which settings a card gets at which temperature. Pure: values in, values out."""

from gpuwarden.thermal.decision import Authority, Policy
from gpuwarden.thermal.policy.regulated import Regulated
from gpuwarden.thermal.policy.stepped import Stepped
from gpuwarden.thermal.thresholds import Thresholds

POLICIES = ("regulated", "stepped")


def make_policy(
    name: str,
    authority: Authority,
    thresholds: Thresholds,
    *,
    decide_seconds: float = 0.5,
    safe_seconds: float = 30.0,
) -> Policy:
    """The policy of that name. Raises KeyError for any other than ``POLICIES``."""
    if name == "stepped":
        return Stepped(authority, thresholds, safe_seconds)
    if name == "regulated":
        return Regulated(authority, thresholds, decide_seconds, safe_seconds)
    raise KeyError(name)
