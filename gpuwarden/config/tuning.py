# SPDX-License-Identifier: Apache-2.0
"""What the host is tuned to by day and by night. The hours are the timers' own."""

import re
from typing import Annotated

from pydantic import AfterValidator

from gpuwarden.config.settings import Section, setting

_PROFILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALLOWED = 'the name of a profile that tuned knows (`tuned-adm list`): "gpuwarden-day"'


def _check_profile(name: str) -> str:
    # tuned takes a leading "-" for an option, a space for two profiles, and "/" for a path.
    if not _PROFILE_NAME.fullmatch(name):
        raise ValueError("a profile's name has letters, digits, - _ and ., and begins with neither")
    return name


ProfileName = Annotated[str, AfterValidator(_check_profile)]


class TuningSettings(Section):
    """The host's own settings, by day and by night. tuned (a package of its own) makes them."""

    enabled: bool = setting(
        False,
        description="Whether the host is tuned at all: what was there before comes back when it is "
        "switched off.",
        why="an installation must not retune a PACS host unasked",
        allowed="true or false",
    )
    day_profile: ProfileName = setting(
        "gpuwarden-day",
        description="The profile from 07:00 on; `systemctl edit medgemma-tuning-day.timer` changes "
        "the time.",
        why="answers first: short time slices, deep disk queues, little unwritten data",
        allowed=_ALLOWED,
    )
    night_profile: ProfileName = setting(
        "gpuwarden-night",
        description="The profile from 19:00 on; `systemctl edit medgemma-tuning-night.timer` "
        "changes the time.",
        why="backups and archiving first: long time slices, short disk queues",
        allowed=_ALLOWED,
    )
