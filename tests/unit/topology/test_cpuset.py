# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from gpuwarden.topology.cpuset import bounds_of
from gpuwarden.topology.model import Bounds


def group(root: Path, name: str, cpus: str, nodes: str = "0") -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpuset.cpus.effective").write_text(f"{cpus}\n")
    (folder / "cpuset.mems.effective").write_text(f"{nodes}\n")


def test_a_group_with_a_cpuset_has_what_is_in_force(tmp_path: Path) -> None:
    group(tmp_path, "", "0-7", "0-1")
    group(tmp_path, "a.slice", "2-3", "1")
    assert bounds_of("/a.slice", tmp_path) == Bounds(frozenset({2, 3}), frozenset({1}))


def test_a_group_without_one_has_its_parents(tmp_path: Path) -> None:
    group(tmp_path, "", "0-7", "0-1")
    group(tmp_path, "a.slice", "2-3")
    (tmp_path / "a.slice/b.slice/c.service").mkdir(parents=True)
    assert bounds_of("/a.slice/b.slice/c.service", tmp_path).cpus == frozenset({2, 3})
    assert bounds_of("/gone.slice", tmp_path).cpus == frozenset(range(8))


def test_a_container_sees_the_top_of_its_own_part(tmp_path: Path) -> None:
    group(tmp_path, "", "4-5", "1")
    assert bounds_of("", tmp_path) == Bounds(frozenset({4, 5}), frozenset({1}))


def test_a_kernel_without_cpusets_bounds_nothing(tmp_path: Path) -> None:
    assert bounds_of("/a.slice", tmp_path) == Bounds()


def test_of_two_cpusets_both_hold_and_one_that_lies_outside_counts_for_nothing() -> None:
    outer = Bounds(frozenset({0, 1, 2}), frozenset({0}))
    assert Bounds(frozenset({2, 3})).within(outer) == Bounds(frozenset({2}), frozenset({0}))
    assert Bounds(frozenset({7})).within(outer) == outer
