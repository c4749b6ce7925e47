# SPDX-License-Identifier: Apache-2.0
"""What the thermal guard promises, case by case, and that the documented table says the same.

A fifth of the cases; ``make bench SECTIONS=thermal`` tries them all.
"""

import pytest

from tests.bench.thermal_cases import WARMER_CELSIUS, Case, cases, sample
from tests.bench.thermal_demands import faults
from tests.bench.thermal_table import documented, is_documented, row
from tests.bench.thermal_trial import try_out


@pytest.mark.parametrize("case", sample(), ids=str)
def test_regulated_keeps_every_demand_and_the_documented_figures(case: Case) -> None:
    trial = try_out(case)
    assert faults(trial) == []
    assert is_documented(trial), (
        f"{row(trial)}: python -m tests.bench.thermal --write brings the table up to date"
    )


def test_the_sample_has_every_card_and_every_scenario() -> None:
    assert {case.card for case in sample()} == {case.card for case in cases()}
    tried = {(case.scenario, case.warmer_celsius) for case in sample()}
    assert tried == {(name, by) for name, shifts in WARMER_CELSIUS.items() for by in shifts}


def test_the_document_has_no_rows_but_these() -> None:
    rows = [line for line in documented() if line.startswith("| ")]
    heads = 2 * len({case.card for case in cases()})
    assert len(rows) == len(cases()) + heads
