# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.cli.sparkline import ASCII_LEVELS, BLOCKS, sparkline


def test_the_lowest_and_the_highest_have_the_ends_of_the_scale() -> None:
    assert sparkline([40, 50, 60, 70], "utf-8") == "▁▃▆█"


def test_what_is_unknown_is_blank() -> None:
    assert sparkline([None, 40, None, 80], "utf-8") == " ▁ █"
    assert sparkline([None, None], "utf-8") == "  "
    assert sparkline([], "utf-8") == ""


def test_a_steady_card_is_a_low_line() -> None:
    assert sparkline([41, 41, 41], "utf-8") == "▁▁▁"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None, "no-such-encoding"])
def test_where_blocks_can_not_be_written_ascii_does(encoding: str | None) -> None:
    assert sparkline([40, 50, 60, 70], encoding) == "_-+#"


@given(st.lists(st.none() | st.floats(-1e6, 1e6)), st.sampled_from(["utf-8", "ascii"]))
def test_every_value_has_its_place(values: list[float | None], encoding: str) -> None:
    line = sparkline(values, encoding)
    levels = BLOCKS if encoding == "utf-8" else ASCII_LEVELS
    assert len(line) == len(values)
    line.encode(encoding)
    for value, character in zip(values, line, strict=True):
        assert (character == " ") == (value is None)
    known = [(v, levels.index(c)) for v, c in zip(values, line, strict=True) if v is not None]
    assert [level for _, level in sorted(known)] == sorted(level for _, level in known)
