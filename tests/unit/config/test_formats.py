# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.config.formats import BUILT_IN_ENGINES, check_engine, format_size, parse_size
from gpuwarden.cpulist import parse_cpu_list
from gpuwarden.worker.engines.registry import BUILT_IN


@given(st.integers(0, 2**50))
def test_a_formatted_size_reads_back_as_the_same_bytes(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("0", 0), ("1", 1), ("4096B", 4096), ("1K", 1024), ("512M", 2**29), ("16G", 2**34)),
        *(("1T", 2**40), ("1.5G", 3 * 2**29), ("64KiB", 65536), ("2 GiB", 2**31), ("0.5K", 512)),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a size"),
        ("much", "not a size"),
        ("-1G", "not a size"),
        ("1e9", "not a size"),
        ("١٦G", "not a size"),
        ("16GB", '"16G"'),
        ("16gb", '"16G"'),
        ("16g", '"16G"'),
        ("16kib", '"16K"'),
        ("5iB", "needs K, M, G or T"),
        ("0.3K", "whole number of bytes"),
        ("9" * 400 + "G", "units|not a size"),
    ],
)
def test_a_bad_size_says_what_would_be_right(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", ()), ("0", (0,)), ("0-3,8", (0, 1, 2, 3, 8)), ("8,0-1,1", (0, 1, 8)), ("5-5", (5,))],
)
def test_cpu_lists(text: str, cpus: tuple[int, ...]) -> None:
    assert sorted(parse_cpu_list(text)) == list(cpus)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("3-1", 'the range "3-1" runs backwards'),
        ("0-", '"0-" is neither'),
        ("-3", '"-3" is neither'),
        ("0,,1", '"" is neither'),
        ("0,", '"" is neither'),
        (",", '"" is neither'),
        ("all", '"all" is neither'),
        ("0 - 3", '"0 - 3" is neither'),
        ("0-3-5", '"0-3-5" is neither'),
        ("0x1", '"0x1" is neither'),
        ("²", '"²" is neither'),
        ("0-999999999", "beyond the kernel's 8192"),
        ("8192", "beyond the kernel's 8192"),
    ],
)
def test_a_malformed_cpu_list_names_the_part(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_cpu_list(text)


def test_each_engine_that_there_is_can_be_configured() -> None:
    assert set(BUILT_IN_ENGINES) == set(BUILT_IN)


@pytest.mark.parametrize("name", [*BUILT_IN, "a:B", "site.models.gemma:Gemma", "_a:_B"])
def test_engines(name: str) -> None:
    assert check_engine(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *(("", "no built-in"), ("Echo", "no built-in"), ("transformer", "no built-in")),
        *((":A", "of the form"), ("a:", "of the form"), ("a.:B", "of the form")),
        *(("a:B:C", "of the form"), ("a:B.c", "of the form"), ("a-b:C", "of the form")),
        *(("a/b.py:C", "of the form"), ("a :B", "of the form"), ("a:B\n", "of the form")),
    ],
)
def test_a_malformed_engine_is_refused(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_engine(name)
