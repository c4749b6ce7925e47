"""``make soak``: every long campaign, one after the other, and a table of what was seen."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.node import levels
from tests.node.channel import NodeError
from tests.node.vm import Node
from tests.soak import markers, thermal
from tests.soak.thermal import Figures

KILLS, KILLED_CARDS, POWER_CUTS, CRASH_ROUNDS = 200, 6, 20, 10
MARKED_REQUESTS, KILLED_EACH_SECONDS = 100_000, 5.0
SEED = 20261121

CAMPAIGNS: tuple[tuple[str, Callable[[Node], Figures]], ...] = (
    ("kills", lambda node: thermal.kills(node, KILLS, SEED, KILLED_CARDS)),
    ("power-cuts", lambda node: thermal.power_cuts(node, POWER_CUTS, SEED)),
    (
        "crash-points",
        lambda node: thermal.crash_points(node, CRASH_ROUNDS, Path(tempfile.mkdtemp())),
    ),
)

# These need no node: the front door and its workers are processes here.
HERE: tuple[tuple[str, Callable[[], Figures]], ...] = (
    ("markers", lambda: markers.figures(MARKED_REQUESTS, SEED, KILLED_EACH_SECONDS)),
)


def main(wanted: list[str]) -> int:
    """Run the campaigns of these names, all where none is named."""
    known = [*(name for name, _ in CAMPAIGNS), *(name for name, _ in HERE)]
    if unknown := [name for name in wanted if name not in known]:
        print(f"no campaign {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"{'campaign':<28} {'done':>5}   {'slowest':>8}   faults", flush=True)
    faults = 0
    for name, campaign in CAMPAIGNS:
        if wanted and name not in wanted:
            continue
        with levels.installed_node() as node:
            try:
                figures = campaign(node)
            except NodeError:
                print(node.journal(), file=sys.stderr)
                raise
        print(figures, flush=True)
        faults += len(figures.faults)
    for name, campaign_here in HERE:
        if not wanted or name in wanted:
            figures = campaign_here()
            print(figures, flush=True)
            faults += len(figures.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
