# SPDX-License-Identifier: Apache-2.0
"""What sets cards through nvidia-smi again and again: loops, timers, cron's tables.

Whoever sets a card once, by hand or at boot, is its administrator, and no rival.
"""

import re
from pathlib import Path

from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, folders, text_of

MOST_SCRIPT_BYTES = 65536
UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")
CRON_TABLES = ("/etc/crontab", "/etc/cron.d", "/etc/cron.hourly", "/var/spool/cron/crontabs")
_RECURS = re.compile(r"^(OnCalendar|OnUnitActiveSec|OnUnitInactiveSec)=", re.MULTILINE)
_LOOP = re.compile(r"\b(while|until|for|watch|sleep)\b")

# nvidia-smi's options that set a limit or a clock (nvidia-smi --help, 580).
_SETTER = re.compile(
    r"nvidia-smi\b[^\n;|&]*?\s(-pl|--power-limit|-lgc|--lock-gpu-clocks|-lmc|--lock-memory-clocks"
    r"|-ac|--applications-clocks|-rgc|--reset-gpu-clocks|-rmc|--reset-memory-clocks)\b"
)


def sets_again(text: str) -> bool:
    """Whether a command line or a script sets a card in a loop."""
    return bool(_SETTER.search(text) and _LOOP.search(text))


def timed(node: Node) -> list[str]:
    """Files that set a card again and again. What does so once a boot is the administrator's."""
    found = []
    for place in UNIT_FOLDERS:
        for timer in node.path(place).glob("*.timer"):
            unit = small_text(timer.with_suffix(".service"))
            recurs = _RECURS.search(small_text(timer)) and _is_enabled(node, timer.name)
            if recurs and _SETTER.search(_with_programs(node, unit)):
                found.append(f"{place}/{timer.name}")
    for place in CRON_TABLES:
        path = node.path(place)
        files = folders(path) if path.is_dir() else [path]
        found += [f"/{file.relative_to(node.root)}" for file in files if _cron_sets(file)]
    return found


def _is_enabled(node: Node, name: str) -> bool:
    """Whether something wants the unit; one that merely lies there runs nothing."""
    return any(any(node.path(place).glob(f"*.wants/{name}")) for place in UNIT_FOLDERS)


def _with_programs(node: Node, unit: str) -> str:
    """A unit's text with the scripts that it starts."""
    programs = re.findall(r"^ExecStart=[-+@!:]*(/\S+)", unit, re.MULTILINE)
    return "\n".join([unit, *(small_text(node.path(program)) for program in programs)])


def _cron_sets(file: Path) -> bool:
    lines = small_text(file).splitlines()
    active = [line for line in lines if not line.lstrip().startswith(("#", "@reboot"))]
    return any(_SETTER.search(line) for line in active)


def small_text(path: Path) -> str:
    """A regular file's text; nothing of one that is large, gone, or closed to this user."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_SCRIPT_BYTES:
            return ""
    except OSError:  # gone meanwhile, or in a folder that is closed to this user
        return ""
    text = text_of(path)
    return "" if isinstance(text, Absence) else text
