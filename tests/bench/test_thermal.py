"""What the thermal guard promises, case by case, and that the documented table says the same."""

import pytest

from tests.bench.thermal_cases import Case, cases
from tests.bench.thermal_demands import faults
from tests.bench.thermal_table import agree, documented, row
from tests.bench.thermal_trial import try_out


@pytest.mark.parametrize("case", cases(), ids=str)
def test_regulated_keeps_every_demand_and_the_documented_figures(case: Case) -> None:
    trial = try_out(case)
    assert faults(trial) == []
    rows = section(case.card)
    new = row(trial)
    same = [old for old in rows if agree(old, new)]
    assert same, f"{new}: python -m tests.bench.thermal --write brings the table up to date"


def test_the_document_has_no_rows_but_these() -> None:
    rows = [line for line in documented() if line.startswith("| ")]
    heads = 2 * len({case.card for case in cases()})
    assert len(rows) == len(cases()) + heads


def section(card: str) -> list[str]:
    """The documented rows of one card."""
    text = "\n".join(documented()).partition(f"### {card}\n")[2]
    return text.partition("\n### ")[0].splitlines()
