# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden orphans``: processes that hold a card's memory and are none of a running worker."""

import argparse
import json
from collections.abc import Sequence

from gpuwarden.cli.exits import Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import UNKNOWN, coloured, duration, fitted, table, unix_now, warn
from gpuwarden.cli.service import get_status_or_last
from gpuwarden.control.states import GuardData, HolderClass, Orphan

# Who they are and what becomes of them; docs/operate.md has the same.
MEANINGS: dict[HolderClass, str] = {
    "ours": "a process of a worker that runs",
    "ours-dead": "left by a worker that is gone: reaped by itself after 3 scans",
    "container": "in a container: ask its owner",
    "desktop": "a display server or a program on it",
    "mps": "NVIDIA's MPS: it belongs to the host",
    "monitoring": "a monitor: it belongs to the host",
    "defunct": "dead, and still listed: end who has inherited the card",
    "uninterruptible": "stuck in the kernel: no signal ends it, a reset of the card may",
    "hidden": "not in the driver's list: found by what it has open",
    "foreign": "somebody's: gpuwarden reap ends it",
}
EXPECTED: frozenset[HolderClass] = frozenset({"ours", "container", "desktop", "mps", "monitoring"})
_HEADER = ("PID", "GPU", "CLASS", "COMMAND", "VRAM MiB", "FOR", "SCANS", "UNIT")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print them; 1 where one should not be there, or a card's holders can't be seen."""
    known = get_status_or_last()
    warn(known.caveat)
    data = known.data
    if arguments.json:
        print(json.dumps(document(data), indent=2))
    else:
        print("\n".join(orphan_lines(data, unix_now())))
    if not known.is_live:
        return Exit.UNREACHABLE
    unexpected = any(each.orphan_class not in EXPECTED for each in data.orphans)
    return Exit.WRONG if unexpected or any(data.scans.values()) else Exit.GOOD


def document(data: GuardData) -> dict[str, object]:
    """The answer for scripts; docs/operate.md has its schema."""
    return {
        "schema": 1,
        "orphans": [each.model_dump(mode="json") for each in data.orphans],
        "unknown": {str(gpu): why for gpu, why in sorted(data.scans.items()) if why},
    }


def orphan_lines(data: GuardData, now_unix_seconds: float) -> list[str]:
    """A table, what the classes in it mean, and which cards can't be seen."""
    lines = _table(data.orphans, now_unix_seconds) if data.orphans else ["  no orphans"]
    for gpu, why in sorted(data.scans.items()):
        if why:
            lines.append(coloured(fitted(f"  gpu {gpu}: its holders are unknown: {why}"), "warn"))
    return lines


def _table(orphans: Sequence[Orphan], now: float) -> list[str]:
    header, *rows = table(_HEADER, [_row(each, now) for each in orphans])
    lines = [fitted(header)]
    for each, row in zip(orphans, rows, strict=True):
        lines.append(coloured(fitted(row), "" if each.orphan_class in EXPECTED else "warn"))
    found = dict.fromkeys(each.orphan_class for each in orphans)
    return lines + [fitted(f"  {each}: {MEANINGS[each]}") for each in found]


def _row(orphan: Orphan, now: float) -> tuple[str, ...]:
    vram = UNKNOWN if orphan.vram_bytes is None else f"{orphan.vram_bytes / 2**20:.0f}"
    return (
        str(orphan.pid),
        str(orphan.gpu),
        orphan.orphan_class,
        orphan.command,
        vram,
        duration(now - orphan.since / 1e6),
        str(orphan.scans_seen),
        orphan.unit or UNKNOWN,
    )
