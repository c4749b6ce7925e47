# SPDX-License-Identifier: Apache-2.0
"""What scripts are promised in docs/operate.md is what there is."""

import re
from pathlib import Path

import pytest

from gpuwarden.cli.orphans import MEANINGS, document
from gpuwarden.control.states import (
    GatewayData,
    GuardData,
    HappenedEvent,
    Orphan,
    State,
    WorkerStatus,
)
from tests.unit.cli.samples import guard

ROOT = Path(__file__).parents[3]
OPERATE = (ROOT / "docs" / "operate.md").read_text()
SCHEMA = OPERATE.partition("### Reading the status")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("key", "model"),
    [
        ("workers", WorkerStatus),
        ("gateway", GatewayData),
        ("orphans", Orphan),
        ("events", HappenedEvent),
    ],
)
def test_every_key_of_a_part_of_the_status_is_documented(key: str, model: type[State]) -> None:
    (row,) = re.findall(rf"^\| `{key}` \| (.*) \|$", SCHEMA, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) >= set(model.model_fields)


def test_every_key_of_the_status_is_documented() -> None:
    first_cells = " ".join(re.findall(r"^\| (`.*?) \|", SCHEMA, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) >= set(GuardData.model_fields)


def test_every_class_of_orphans_is_documented_with_what_the_command_says_of_it() -> None:
    for name, meaning in MEANINGS.items():
        if name != "ours":  # no orphan
            assert f"| `{name}` | {meaning} |" in OPERATE


def test_the_orphans_document_has_the_keys_that_are_promised() -> None:
    assert list(document(guard())) == ["schema", "orphans", "unknown"]
