# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden import priority
from gpuwarden.worker import priority as workers_own


@given(st.integers(1, 99))
def test_each_real_time_priority_reads_as_itself(number: int) -> None:
    assert priority.parse_priority(f"fifo:{number}") == number


@given(st.text() | st.from_regex(r"(fifo|rr|normal):?[0-9]{0,4}", fullmatch=True))
def test_the_worker_takes_what_the_configuration_takes_and_nothing_else(text: str) -> None:
    def read_by(parse: object) -> object:
        assert callable(parse)
        try:
            return parse(text)
        except ValueError:
            return "refused"

    assert read_by(priority.parse_priority) == read_by(workers_own.parse_priority)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("fifo", "no priority given"),
        ("fifo:", "no priority given"),
        ("fifo:0", "go from 1 to 99"),
        ("fifo:100", "go from 1 to 99"),
        ("fifo:99999999999999999999", "go from 1 to 99"),
        ("fifo:010", '"fifo:10"'),
        ("fifo:-1", "not a priority"),
        ("fifo:1.5", "not a priority"),
        ("fifo:١", "not a priority"),
        ("FIFO:10", "not a priority"),
        ("rr:5", "the policy rr is not used"),
        ("deadline", "the policy deadline is not used"),
        ("", "not a priority"),
        (" fifo:10", "not a priority"),
        ("normal:1", "not a priority"),
        ("fifo:10\n", "not a priority"),
    ],
)
def test_what_is_no_priority_is_told_why(text: str, why: str) -> None:
    with pytest.raises(priority.PriorityError, match=why):
        priority.parse_priority(text)
