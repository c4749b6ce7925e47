# SPDX-License-Identifier: Apache-2.0
"""``make soak``: every long campaign, one after the other, and a table of what was seen."""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.node import levels
from tests.node.channel import NodeError
from tests.node.vm import Node
from tests.soak import bus_fuzz, jobs, markers, overload, thermal
from tests.soak.day import campaign as day
from tests.soak.random_kills.campaign import random_kills
from tests.soak.worker_kills import worker_kills

KILLS, KILLED_CARDS, POWER_CUTS, CRASH_ROUNDS = 200, 6, 20, 10
RANDOM_KILLS = 500
FUZZED_CALLS = 50_000
MARKED_REQUESTS, KILLED_EACH_SECONDS = 100_000, 5.0
JOB_KILLS, JOB_POWER_CUTS, JOB_CRASHES = 50, 30, 20
WORKER_KILLS, ONLY_WORKER_KILLS = 200, 50
OVERLOAD_SECONDS = 60.0
DAY_SECONDS = 1200.0
SEED = 20261121


class Figures(Protocol):
    """What a campaign has seen, as a row of the table when it is printed."""

    @property
    def faults(self) -> list[str]:
        """What must not be, in words."""


def on_node(campaign: Callable[[Node], Figures]) -> Callable[[], Figures]:
    """A campaign on a fresh node, whose journal is shown where it breaks off."""

    def run() -> Figures:
        with levels.installed_node() as node:
            try:
                return campaign(node)
            except NodeError:
                print(node.journal(), file=sys.stderr)
                raise

    return run


CAMPAIGNS: tuple[tuple[str, Callable[[], Figures]], ...] = (
    ("kills", on_node(lambda node: thermal.kills(node, KILLS, SEED, KILLED_CARDS))),
    ("power-cuts", on_node(lambda node: thermal.power_cuts(node, POWER_CUTS, SEED))),
    (
        "crash-points",
        on_node(lambda node: thermal.crash_points(node, CRASH_ROUNDS, Path(tempfile.mkdtemp()))),
    ),
    ("jobs-kills", lambda: jobs.kills(JOB_KILLS, SEED)),
    ("jobs-power-cuts", on_node(lambda node: jobs.power_cuts(node, JOB_POWER_CUTS, SEED))),
    (
        "jobs-crash-points",
        on_node(lambda node: jobs.crash_points(node, JOB_CRASHES, Path(tempfile.mkdtemp()))),
    ),
    ("worker-kills", lambda: worker_kills(WORKER_KILLS, SEED)),
    ("worker-kills-only", lambda: worker_kills(ONLY_WORKER_KILLS, SEED, workers=1)),
    ("overload-quick", lambda: overload.overload(overload.QUICK, OVERLOAD_SECONDS, SEED)),
    ("overload-slow", lambda: overload.overload(overload.SLOW, OVERLOAD_SECONDS, SEED)),
    ("day", on_node(lambda node: day.on_node(node, DAY_SECONDS, SEED))),
    ("random-kills", on_node(lambda node: random_kills(node, RANDOM_KILLS, SEED))),
    ("bus-fuzz", lambda: asyncio.run(bus_fuzz.fuzz(FUZZED_CALLS, SEED))),
    ("markers", lambda: marked(markers.MIXED)),
    ("markers-short", lambda: marked(markers.SHORT)),
)


def marked(mix: markers.Mix) -> Figures:
    """Nobody gets another's answer, whatever is asked."""
    return markers.figures(MARKED_REQUESTS, SEED, KILLED_EACH_SECONDS, mix)


def main(wanted: list[str]) -> int:
    """Run the campaigns of these names, all where none is named; ``jobs`` stands for its three."""
    known = [name for name, _ in CAMPAIGNS]
    if unknown := [name for name in wanted if not any(is_meant(one, name) for one in known)]:
        print(f"no campaign {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"{'campaign':<52} {'done':>5}   {'slowest':>8}   faults", flush=True)
    faults = 0
    for name, campaign in CAMPAIGNS:
        if wanted and not any(is_meant(name, one) for one in wanted):
            continue
        figures = campaign()
        print(figures, flush=True)
        faults += len(figures.faults)
    return 1 if faults else 0


def is_meant(campaign: str, wanted: str) -> bool:
    """Whether a campaign is the one of that name, or of that group."""
    return campaign == wanted or campaign.startswith(f"{wanted}-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
