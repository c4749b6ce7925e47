# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.cpulist import (
    CpuListError,
    format_cpu_list,
    parse_cpu_list,
    parse_disjoint_cpu_list,
)


@given(st.frozensets(st.integers(0, 8191), max_size=200))
def test_a_set_survives_its_text(cpus: frozenset[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus)) == cpus


@given(st.frozensets(st.integers(0, 300), min_size=1))
def test_the_text_is_the_shortest(cpus: frozenset[int]) -> None:
    text = format_cpu_list(cpus)
    starts = [cpu for cpu in cpus if cpu - 1 not in cpus]
    assert len(text.split(",")) == len(starts)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", []),
        ("\n", []),
        ("0", [0]),
        ("0-3,8", [0, 1, 2, 3, 8]),
        ("0-1, 4-5\n", [0, 1, 4, 5]),
        ("3-3", [3]),
    ],
)
def test_the_kernels_lists_are_read(text: str, cpus: list[int]) -> None:
    assert sorted(parse_cpu_list(text)) == cpus


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-1", "1--2", "0x3", "1;2", "٣"])
def test_what_is_no_list_is_named_in_the_error(text: str) -> None:
    with pytest.raises(CpuListError, match=r"neither a CPU number|backwards"):
        parse_cpu_list(text)


@given(st.text(max_size=20))
def test_any_text_is_a_list_or_an_error(text: str) -> None:
    try:
        parse_cpu_list(text)
    except CpuListError as error:
        assert str(error)


def test_a_cpu_named_twice_is_a_mistake_of_whoever_wrote_the_list() -> None:
    assert parse_cpu_list("0-3,2") == parse_disjoint_cpu_list("0-3") == {0, 1, 2, 3}
    with pytest.raises(CpuListError, match="CPU 2-3 is named twice"):
        parse_disjoint_cpu_list("0-3,2-5")
    with pytest.raises(CpuListError, match="backwards"):
        parse_disjoint_cpu_list("3-0")
