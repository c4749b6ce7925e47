# SPDX-License-Identifier: Apache-2.0
"""The thermal guard's own process on the first card of the node, unable to change anything on it.

    python -m tests.gpu.guard_process FOLDER

What it would read and write elsewhere it does in FOLDER; it ends with SIGTERM.
"""

import sys
from pathlib import Path

from gpuwarden.config import Configuration
from gpuwarden.nvml.library import choose_library
from gpuwarden.thermal.originals_store import Places as OriginalsPlaces
from gpuwarden.thermal.service import Places, main
from tests.gpu.reading_only import deny_setters


def guard(folder: Path) -> int:
    """Guard the card that FOLDER's plan names."""
    deny_setters()
    places = Places(
        load=Configuration,
        plan_file=folder / "plan.json",
        snapshot_file=lambda index: folder / f"{index}.json",
        lease_file=lambda index: folder / f"{index}.lease.json",
        originals=OriginalsPlaces(disk=folder / "disk", run=folder / "run"),
    )
    assert not choose_library().simulated
    return main(["0"], places)


if __name__ == "__main__":
    sys.exit(guard(Path(sys.argv[1])))
