# SPDX-License-Identifier: Apache-2.0
"""systemctl, for the short-lived parts that need one word of systemd and no bus connection."""

import subprocess
from collections.abc import Sequence

TIMEOUT_SECONDS = 30.0  # a reload of the manager re-reads every unit of the machine


class SystemctlError(Exception):
    """systemctl refused, failed or did not come back; the text says what was asked and why not."""


def reload_manager() -> None:
    """Have systemd read its units again. Raises SystemctlError."""
    _systemctl("daemon-reload")


def unit_property(unit: str, name: str) -> str:
    """One property of a unit as ``systemctl show`` prints it. Raises SystemctlError."""
    return _systemctl("show", f"--property={name}", "--value", unit)


def units_properties(
    units: Sequence[str], properties: Sequence[str], timeout_seconds: float | None = None
) -> list[dict[str, str]]:
    """The properties of each unit, in the order of ``units``; a unit that isn't there has them too.

    :raises SystemctlError: also where an answer is missing.
    """
    asked = [f"--property={name}" for name in properties]
    text = _systemctl("show", *asked, "--", *units, timeout_seconds=timeout_seconds)
    blocks = [_block(block) for block in text.strip().split("\n\n")]
    if len(blocks) != len(units):
        raise SystemctlError(f"systemctl show: {len(blocks)} answers about {len(units)} units")
    return blocks


def _block(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, _, value in pairs}


def _systemctl(*arguments: str, timeout_seconds: float | None = None) -> str:
    what = f"systemctl {' '.join(arguments)}"
    try:
        return subprocess.run(
            ["systemctl", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise SystemctlError(f"{what}: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemctlError(f"{what}: {error}") from error
