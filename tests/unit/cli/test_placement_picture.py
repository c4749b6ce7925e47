# SPDX-License-Identifier: Apache-2.0
import pytest

from gpuwarden.cli.output import table
from gpuwarden.cli.placement import file_lines, plan_lines
from gpuwarden.cli.placement_picture import HEADER, picture, worker_row
from gpuwarden.config import Configuration
from gpuwarden.control.states import Card, PlanData
from gpuwarden.placement.plan import Driver, Ground, make_plan
from gpuwarden.placement.preview import Preview
from gpuwarden.topology.model import Bounds, Topology
from tests.machines import card, machine

PICTURE = """\
  +-- socket 0, NUMA node 0: 4 CPUs, memory ---------------------------------+
  | CPU   0  4  1  5                                                         |
  |       H  H w0 w0                                                         |
  | GPU 0  0000:10:00.0  worker 0  NVIDIA H200                               |
  +--------------------------------------------------------------------------+
  +-- socket 1, NUMA node 1: 4 CPUs, memory ---------------------------------+
  | CPU   2  6  3  7                                                         |
  |      w1 w1  x  x                                                         |
  | GPU 1  0000:11:00.0  worker 1  NVIDIA H200                               |
  +--------------------------------------------------------------------------+
  +-- on no known NUMA node -------------------------------------------------+
  | GPU 2  0000:12:00.0  worker 2  NVIDIA H200                               |
  +--------------------------------------------------------------------------+
  H housekeeping, wN worker N, x kept from workers by a cpuset"""

TABLE = """\
  WORKER  GPU  NODE  CPUS              OWN  MEMORY
       0    0     0  1,5               no   node 0, preferred
       1    1     1  2,6               no   node 1, preferred
       2    2     -  any (not pinned)  no   any node"""


def plan(
    topology: Topology, cards: list[Card], bounds: Bounds | None = None, **changes: object
) -> PlanData:
    configuration = Configuration.model_validate(changes)
    ground = Ground(topology, workers=bounds or Bounds())
    return make_plan(cards, ground, configuration, Driver("580", simulated=True))


def three_cards() -> PlanData:
    most = Bounds(frozenset(range(8)) - {3, 7})
    return plan(machine(2, 2, 2), [card(0, 0), card(1, 1), card(2, -1)], most)


def test_the_sockets_are_drawn_with_all_that_is_on_them() -> None:
    assert "\n".join(picture(three_cards())) == PICTURE


def test_the_workers_are_a_table() -> None:
    rows = [worker_row(worker) for worker in three_cards().workers]
    assert "\n".join(table(HEADER, rows)) == TABLE


def test_a_cpu_of_several_is_marked_with_a_plus() -> None:
    cards = [card(0, 0), card(1, 0)]
    shared = "\n".join(picture(plan(machine(1, 2, 1), cards)))
    assert "H w0+" in shared
    assert "+ and others" in shared
    assert "H+" in "\n".join(picture(plan(machine(1, 1, 1), cards)))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_largest_machine_fits_into_80_columns(threads: int) -> None:
    cards = [card(index, index % 8) for index in range(8)]
    large = plan(machine(8, 64, threads), cards, workers={"workers_per_gpu": 16})
    lines = plan_lines(large)
    assert all(len(line) <= 80 for line in lines)
    assert all(line.isascii() for line in lines)


def test_what_was_decided_and_what_is_wrong_is_said_below() -> None:
    lines = plan_lines(three_cards())
    assert lines[0] == "  SIMULATED cards"
    text = " ".join(" ".join(lines).split())
    assert "note: a cpuset leaves workers CPUs 0-2,4-6 of 0-7" in text
    assert "warning: worker 2 is not pinned: neither the kernel nor the driver knows" in text


def test_without_cards_the_reason_is_said() -> None:
    assert "no workers: the driver runs but shows no card" in "\n".join(
        plan_lines(plan(machine(), []))
    )


def test_files_are_shown_as_systemctl_cat_does() -> None:
    files = {"a.slice": ("changed", "[Slice]\nX=1\n"), "b.slice": ("removed", "[Slice]\n")}
    found = Preview(three_cards(), files)  # type: ignore[arg-type]  # paths as plain text
    assert file_lines(found) == [
        "# /run/systemd/system/a.slice (changed)",
        "[Slice]",
        "X=1",
        "",
        "# /run/systemd/system/b.slice (removed)",
        "",
    ]
