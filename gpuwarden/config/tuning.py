"""[tuning]: whether and how tuned sets the host by the time of day."""

from typing import Annotated

from pydantic import StringConstraints

from gpuwarden.config.settings import Section, setting

# tuned's profiles are folders below /etc/tuned and /usr/lib/tuned.
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class TuningSettings(Section):
    """The host's settings by the time of day, through tuned."""

    enabled: bool = setting(
        False,
        description="Whether medgemma-tuning may switch tuned's profile.",
        why="nobody wants a PACS host retuned by an installation",
    )
    day_profile: ProfileName = setting(
        "gpuwarden-day",
        description="tuned's profile of the day.",
        why="the one that this package brings",
        allowed="the name of a profile of tuned",
    )
    night_profile: ProfileName = setting(
        "gpuwarden-night",
        description="tuned's profile of the night.",
        why="the one that this package brings",
        allowed="the name of a profile of tuned",
    )
