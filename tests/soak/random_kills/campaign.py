# SPDX-License-Identifier: Apache-2.0
"""Random kills on a node: started from outside, judged, told as a table.

**Back within 5 s.** The node is emulated and slow, so its times count as multiples of what
``python3 -c pass`` takes there, measured under the same load, from each kill until all is well. A
slow server takes 20 ms for that. 2.5 of the 5 s are waits that no computer shortens: systemd's
RestartSec (1 s for a worker), the guard's turn (1 s), the gateway's look at the cards (0.5 s). The
other 2.5 s are work: 125 times the 20 ms. So in the node everything has to be as before, seen from
outside, within 2.5 s and 125 times its own ``python3 -c pass``.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.node.channel import NodeError, Process
from tests.node.vm import Node
from tests.soak.line import slope
from tests.soak.random_kills.in_node import SPARED
from tests.soak.thermal import LIBRARIES, Figures
from tests.system.service import configure

WAIT_SECONDS, WORK_PASSES = 2.5, 125
ROUND_SECONDS = 600.0
FOLDER = "/run/random-kills"
CONFIG_PATH = "/etc/gpuwarden/conf.d/80-random-kills.toml"
# How long a model takes to load is its own affair: echo has nothing to load, and its batches take
# time without a CPU. Slow as the node is, a request may have to wait for two workers to come back.
# The hook lives long enough to be killed.
CONFIG = """\
[workers]
engine = "echo"
options = { delay_seconds = 0.5 }

[gateway]
request_timeout_seconds = 300

[[thermal.hooks]]
on = ["normal"]
command = ["/bin/sleep", "20"]
"""
PROJECT = Path(__file__).parents[3]
MODULES = ("__init__", "in_node", "load", "pace", "processes", "strikes", "watch")
# What the guard and the gateway may hold more after all kills of the others: their allocator's.
# They are young when they are spared for the first time: until a third of the looks at them is over
# they fill what they keep (events, histories). Python's allocator takes and gives back memory by
# the MiB (ARENA_SIZE of CPython 3.10 and later): one is noise, and a line through it is more. Of a
# few looks nothing can be told but those steps: memory is judged in the campaign and in ``day``.
GROWTH_KIB, GROWTH_DESCRIPTORS, YOUTH = 2048, 2, 1 / 3
LEAST_LOOKS = 10
SHARED_GROWTH_KIB = 16 * 1024  # the pool's buffers of a moment
GROWTH_MEMFDS = 6  # buffers that the pool keeps: of two sizes, for three callers
LOST_TOLD = 10
ROUNDS_A_LINE = 10  # of progress: all of it takes more than an hour

Told = dict[str, Any]


@dataclass
class RandomKills(Figures):
    """What the campaign has seen: ``rounds`` as they were told, ``requests`` as they ended."""

    rounds: list[Told] = field(default_factory=list)
    requests: Told = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.table()])

    def table(self) -> list[str]:
        """The figures, a line each."""
        return [
            "  part                 kills  median s   worst s   worst in passes   allowed",
            *(self._line(part) for part in sorted({p for r in self.rounds for p in r["parts"]})),
            *self._request_lines(),
            *(line for name in SPARED for line in self._growth_lines(name)),
            self._memory_line(),
        ]

    def _line(self, part: str) -> str:
        rounds = [each for each in self.rounds if part in each["parts"]]
        seconds = [each["took_seconds"] for each in rounds]
        worst = max(rounds, key=lambda each: each["took_seconds"] / allowed_seconds(each))
        return (
            f"  {part:<20} {len(rounds):>5}  {median(seconds):>8.1f}  {max(seconds):>8.1f}"
            f"  {worst['took_seconds'] / worst['pass_seconds']:>16.0f}"
            f"  {allowed_seconds(worst) / worst['pass_seconds']:>8.0f}"
        )

    def _request_lines(self) -> list[str]:
        told = self.requests
        mean = sum(each["in_flight"] for each in self.rounds) / max(1, len(self.rounds))
        passes = [each["pass_seconds"] for each in self.rounds]
        return [
            f"  requests: {told['asked']} sent, {told['answered']} answered, {told['refused']} "
            f"refused, {told['asked_again']} sent again after a gateway's death, "
            f"{len(told['lost'])} lost; slowest answer {told['slowest_seconds']:.1f} s; "
            f"{mean:.1f} under way at a kill",
            f"  python3 -c pass: median {median(passes):.3f} s, worst {max(passes):.3f} s",
        ]

    def _growth_lines(self, name: str) -> list[str]:
        growth = growth_of(self.rounds, name)
        if growth is None:
            return []
        return [
            f"  {name}: descriptors {growth.descriptors[0]} -> {growth.descriptors[1]}, RssAnon "
            f"{' -> '.join(f'{kib / 1024:.1f}' for kib in growth.kib)} MiB (young, grown, in the "
            f"end), {growth.kib_per_round:+.2f} KiB a round over the last {growth.rounds}"
        ]

    def _memory_line(self) -> str:
        first, last = self.rounds[0], self.rounds[-1]
        return (
            f"  shared memory: {first['memfds']} -> {last['memfds']} memfds with "
            f"{first['memfd_bytes'] / 2**20:.1f} -> {last['memfd_bytes'] / 2**20:.1f} MiB, "
            f"the node's {first['shared_kib'] / 1024:.1f} -> {last['shared_kib'] / 1024:.1f} MiB"
        )


@dataclass(frozen=True)
class Growth:
    """What one process held at first, after its youth, and at last, and a line through its rest.

    The line is that of least squares: a leak shows in it long before it shows in the ends.
    """

    rounds: int
    descriptors: tuple[int, int]
    kib: tuple[int, int, int]
    kib_per_round: float


def random_kills(node: Node, count: int, seed: int, pairs: float = 0.2) -> RandomKills:
    """Kill, and judge what comes back.

    :param pairs: in which share of the rounds two are struck at once.
    """
    figures = RandomKills("random kills under load")
    prepare(node)
    campaign = node.start(
        f"{LIBRARIES}:{FOLDER} exec python3 -m tests.soak.random_kills.in_node "
        f"{count} {seed} {pairs}"
    )
    while "requests" not in (told := next_line(campaign)):
        judge_round(figures, told)
        if len(figures.rounds) % ROUNDS_A_LINE == 0:
            print(progress(figures), file=sys.stderr, flush=True)
    figures.requests = told["requests"]
    figures.faults += figures.requests["lost"][:LOST_TOLD]
    figures.faults += [f"{unit} has failed" for unit in told["failed_units"]]
    figures.faults += faults_of_growth(figures.rounds)
    return figures


def prepare(node: Node) -> None:
    """Configure the node, and put the campaign's modules there."""
    configure(node, CONFIG, CONFIG_PATH)
    folder = "tests/soak/random_kills"
    node.run(
        f"mkdir -p {FOLDER}/{folder}; touch {FOLDER}/tests/__init__.py "
        f"{FOLDER}/tests/soak/__init__.py"
    )
    for module in MODULES:
        node.put(PROJECT / folder / f"{module}.py", f"{FOLDER}/{folder}/{module}.py")


def next_line(campaign: Process) -> Told:
    """What it tells next. Raises NodeError with its last words where it has ended instead."""
    try:
        line = campaign.read_until(r"^\{.*\}$", timeout_seconds=ROUND_SECONDS)[0]
    except NodeError as error:
        raise NodeError(f"{error}\n{campaign.stderr.decode(errors='replace')}") from error
    told: Told = json.loads(line)
    return told


def judge_round(figures: RandomKills, told: Told) -> None:
    """Take one round into the figures."""
    struck = " and ".join(told["strikes"])
    figures.rounds.append(told)
    figures.slowest_seconds = max(figures.slowest_seconds, told["took_seconds"])
    if told["fault"]:
        figures.faults.append(f"{told['fault']} after {struck} (kill {figures.done})")
    elif told["took_seconds"] > allowed_seconds(told):
        passes = told["took_seconds"] / told["pass_seconds"]
        figures.add_late(
            f"{told['took_seconds']:.1f} s, {passes:.0f} times python3 -c pass, after {struck}"
        )
    for _ in told["parts"]:
        figures.count()


def progress(figures: RandomKills) -> str:
    """A line for whoever waits for the end."""
    held = figures.rounds[-1]["held"]
    sizes = ", ".join(f"{name} {held[name][2]} KiB" for name in SPARED if name in held)
    return f"  {figures.done} kills, {len(figures.faults)} faults; {sizes}"


def allowed_seconds(told: Told) -> float:
    """What 5 s of a server are in this node at this moment."""
    return float(WAIT_SECONDS + WORK_PASSES * told["pass_seconds"])


def growth_of(rounds: Iterable[Told], name: str) -> Growth | None:
    """How a part that was spared has grown; None where there are not two looks at it."""
    looks = [each["held"][name] for each in rounds if each["spared"] and name in each["held"]]
    if len(looks) < 2:
        return None
    youth = int(len(looks) * YOUTH)
    kib = [each[2] for each in looks[youth:]]
    held = (looks[0][2], kib[0], kib[-1])
    return Growth(len(kib), (looks[0][1], looks[-1][1]), held, slope(range(len(kib)), kib))


def faults_of_growth(rounds: list[Told]) -> list[str]:
    """What has grown that must not."""
    faults = []
    for name in SPARED:
        pids = {each["held"][name][0] for each in rounds if each["spared"] and name in each["held"]}
        growth = growth_of(rounds, name)
        if len(pids) != 1 or growth is None:
            faults.append(f"the {name} was spared and yet there were {len(pids)} of it")
            continue
        rise_kib = growth.kib_per_round * (growth.rounds - 1)
        if growth.rounds >= LEAST_LOOKS and rise_kib > GROWTH_KIB:
            faults.append(f"the {name} grew by {growth.kib_per_round:.1f} KiB a round")
        if growth.descriptors[1] > growth.descriptors[0] + GROWTH_DESCRIPTORS:
            faults.append(f"the {name}'s descriptors grew: {growth.descriptors}")
    grown_memfds = rounds[-1]["memfds"] - rounds[0]["memfds"]
    if grown_memfds > GROWTH_MEMFDS:
        faults.append(f"{grown_memfds} memfds more")
    grown_kib = rounds[-1]["shared_kib"] - rounds[0]["shared_kib"]
    if grown_kib > SHARED_GROWTH_KIB:
        faults.append(f"{grown_kib} KiB of shared memory were left")
    return faults
