# SPDX-License-Identifier: Apache-2.0
"""Whether this process may change a card."""

from pathlib import Path

PROCESS_STATUS = Path("/proc/self/status")
CAP_SYS_ADMIN = 21  # linux/capability.h; what NVIDIA's driver asks for before it sets anything


def lacks_administration(status: Path = PROCESS_STATUS) -> str:
    """Why settings will be refused; empty where this process has CAP_SYS_ADMIN, or can't tell."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name == "CapEff" and not int(value, 16) >> CAP_SYS_ADMIN & 1:
            return "this process lacks CAP_SYS_ADMIN (see the unit's CapabilityBoundingSet=)"
    return ""
