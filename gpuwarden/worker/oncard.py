# SPDX-License-Identifier: Apache-2.0
"""Whether this worker is on its card, as the scan of that card publishes it for everybody to read.

The scan asks the driver and knows each process's control group; a worker may do neither. What is
not known is said to be unknown.
"""

import json
import time
from pathlib import Path
from typing import Any, Dict, Optional

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def is_listed(scan_file: Path, number: int) -> Optional[bool]:
    """Whether the card's last complete scan lists a process of worker ``number``; None: unknown."""
    try:
        state = json.loads(scan_file.read_bytes())
        return _is_listed(state["data"], number) if _is_fresh(state) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no scan, or one of another version


def _is_fresh(state: Dict[str, Any]) -> bool:
    age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - state["boottime_nanoseconds"]
    in_time = 0 <= age <= state["valid_milliseconds"] * 1_000_000
    return in_time and bool(state["boot_id"] == BOOT_ID_FILE.read_text(encoding="ascii").strip())


def _is_listed(data: Dict[str, Any], number: int) -> Optional[bool]:
    if data["state"] != "scanning" or data["problem"]:
        return None
    listed = [holder for holder in data["holders"] if holder["listed"]]
    if any(each["holder_class"] == "ours" and each["worker"] == number for each in listed):
        return True
    return None if any(not each["control_group"] for each in listed) else False
