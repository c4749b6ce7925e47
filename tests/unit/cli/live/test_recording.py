# SPDX-License-Identifier: Apache-2.0
"""A node that was recorded with a card in alert, as the documentation shows it."""

import time
from collections.abc import Iterator

import pytest

from gpuwarden.cli.live.cards import Paper
from gpuwarden.cli.live.session import Session
from gpuwarden.cli.live.views import screen
from gpuwarden.cli.sparkline import BLOCKS
from gpuwarden.values import ThermalState
from tests.unit.cli.live.recording import Recorded, recorded
from tests.unit.cli.live.scenes import SSH, seen
from tools.top_pictures import IMAGES, PICTURES, picture


@pytest.fixture
def universal_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(scope="module")
def record() -> Recorded:
    return recorded()


def test_the_recording_has_a_card_in_alert_and_minutes_before_it(record: Recorded) -> None:
    assert record.known.data.gpus[0].state is ThermalState.ALERT
    assert record.trail[0][-1].at_seconds - record.trail[0][0].at_seconds > 120


def test_all_of_a_real_node_is_on_80_by_24(record: Recorded) -> None:
    now = record.unix_seconds
    what = seen(record.known.data, record.trail)
    lines = screen(what, Session(), (), SSH, Paper(now, SSH.columns, BLOCKS))
    text = "\n".join(each.text for each in lines)
    for wanted in ("ALERT", "held below alert", "Workers", "Queue", "Jobs", "Last events"):
        assert wanted in text


@pytest.mark.usefixtures("universal_time")
@pytest.mark.parametrize("name", list(PICTURES))
async def test_the_pictures_in_the_documentation_are_what_it_shows(
    name: str, record: Recorded
) -> None:
    drawn = await picture(record, PICTURES[name])
    assert (IMAGES / name).read_text(encoding="utf-8") == drawn, "python -m tools.top_pictures"
