# SPDX-License-Identifier: Apache-2.0
"""The profiles of the host's tuner, tuned, as they lie on this machine's disk."""

import re
from pathlib import Path

PROGRAM = "usr/sbin/tuned"
CONFIGURATION = "etc/tuned/tuned-main.conf"
# Debian 13's tuned (2.25) looks below profiles/; Debian 12's (2.20), one folder higher.
LAYOUTS = (
    ("usr/lib/tuned/profiles", "etc/tuned/profiles"),
    ("usr/lib/tuned", "etc/tuned"),
)
STOCK_PROFILE = "balanced"  # tells the layouts apart: every tuned has it in its own folder
_PROFILE_DIRECTORIES = re.compile(r"^\s*profile_dirs\s*=\s*(?P<list>[^#\n]+)", re.MULTILINE)


def tuned_is_installed(root: Path = Path("/")) -> bool:
    """Whether this machine has tuned."""
    return (root / PROGRAM).exists()


def known_profiles(root: Path = Path("/")) -> set[str]:
    """The names of the profiles that tuned would find now; none where there is no tuned."""
    if not tuned_is_installed(root):
        return set()
    return {
        file.parent.name
        for folder in _folders(root)
        for file in (root / folder).glob("*/tuned.conf")
    }


def _folders(root: Path) -> tuple[str, ...]:
    try:
        told = _PROFILE_DIRECTORIES.search((root / CONFIGURATION).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        told = None
    for layout in LAYOUTS:
        if (root / layout[0] / STOCK_PROFILE / "tuned.conf").exists():
            if told and layout is LAYOUTS[0]:  # only that tuned has the key
                return tuple(each.strip().lstrip("/") for each in re.split("[,;]", told["list"]))
            return layout
    return ()
