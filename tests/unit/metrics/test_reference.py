# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

from gpuwarden.gateway.meters import METERS as OF_GATEWAY
from gpuwarden.metrics.meters import METERS as OF_NODE
from tools.metrics_table import DOCUMENT, document

PACKAGING = Path(__file__).parents[3] / "packaging"


def test_the_reference_is_made_from_the_definitions() -> None:
    said = "python -m tools.metrics_table writes it"
    assert DOCUMENT.read_text() == document(), said


def test_no_metric_has_two_homes() -> None:
    assert not {each.name for each in OF_NODE} & {each.name for each in OF_GATEWAY}


def test_rules_and_dashboard_are_in_the_package() -> None:
    listed = (PACKAGING / "debian" / "gpuwarden.install").read_text()
    assert "packaging/prometheus/*.rules.yml usr/share/gpuwarden/prometheus\n" in listed
    assert "packaging/grafana/*.json usr/share/gpuwarden/grafana\n" in listed
