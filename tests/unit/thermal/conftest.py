# SPDX-License-Identifier: Apache-2.0
"""What the tests of the guard's loop share."""

import pytest

from gpuwarden.thermal import guard as guard_module
from gpuwarden.thermal import view as view_module
from tests.unit.thermal.guarding import BLIND_SECONDS, PUBLISHED_SECONDS, StandInCard
from tests.unit.thermal.readings import seen


@pytest.fixture
def card() -> StandInCard:
    return StandInCard(seen(50))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishes often, and is soon blind."""
    monkeypatch.setattr(guard_module, "PUBLISH_EVERY_SECONDS", PUBLISHED_SECONDS)
    monkeypatch.setattr(guard_module, "APPLY_EVERY_SECONDS", PUBLISHED_SECONDS)
    monkeypatch.setattr(guard_module, "BLIND_AFTER_SECONDS", BLIND_SECONDS)
    monkeypatch.setattr(view_module, "BLIND_AFTER_SECONDS", BLIND_SECONDS)


@pytest.fixture
def rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishes nothing that is not worth it."""
    monkeypatch.setattr(guard_module, "PUBLISH_EVERY_SECONDS", 3600.0)
