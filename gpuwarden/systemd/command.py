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


def unit_properties(units: Sequence[str], names: Sequence[str]) -> list[dict[str, str]]:
    """Properties of units, in the units' order, as ``systemctl show`` prints them.

    :raises SystemctlError: it doesn't say.
    """
    wished = ",".join(names)
    shown = _systemctl("show", f"--property={wished}", "--", *units)
    found = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in shown.split("\n\n")
    ]
    if len(found) != len(units):
        raise SystemctlError(f"systemctl show of {len(units)} units told of {len(found)}")
    return found


def _systemctl(*arguments: str) -> str:
    what = f"systemctl {' '.join(arguments)}"
    try:
        return subprocess.run(
            ["systemctl", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise SystemctlError(f"{what}: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemctlError(f"{what}: {error}") from error
