# SPDX-License-Identifier: Apache-2.0
"""Software alone holds a real card's mean, in a minute. Needs torch beside the driver; reads only.

The long version, with what it shows, is in docs/thermal-h200.md.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pynvml
import pytest

from gpuwarden.nvml.library import DRIVER_VERSION_FILE, choose_library
from tests.gpu.cards import first_card, sampler_of
from tests.gpu.holding import LOADING_SECONDS, Phase, Row, Trial
from tests.gpu.reading_only import SetterCalledError, forbid_setters
from tests.gpu.worker import TrialWorker

HELD_WITHIN_CELSIUS = 1.0  # the sensor's own step


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    if not DRIVER_VERSION_FILE.exists():
        pytest.skip("no NVIDIA GPU")
    forbid_setters()
    library = choose_library()
    card, _ = first_card(library)
    with TrialWorker(card.uuid) as worker:
        worker.wait_until_ready(LOADING_SECONDS)
        sampler = sampler_of(card, tmp_path, library)
        yield Trial(sampler, worker)
        sampler.close()


def test_the_mean_of_ten_seconds_is_held_by_rests_alone(trial: Trial) -> None:
    with pytest.raises(SetterCalledError):
        pynvml.nvmlDeviceSetPowerManagementLimit(None, 0)
    free = trial.run([Phase("rest", 5, working=False), Phase("full", 15)])
    rest = mean_of([row for row in free if row.phase == "rest"])
    alert = rest + 0.6 * (mean_of(free) - rest)
    held = trial.run([Phase("held", 40, alert_celsius=alert)])
    print(f"rest {rest:.1f}, full {mean_of(free):.1f}, alert {alert:.1f}, held {mean_of(held):.1f}")
    assert mean_of(held) <= alert + HELD_WITHIN_CELSIUS
    assert held[-1].dispatch_duty < 1
    assert held[-1].requests > 0
    assert trial.cost.refused == []


def mean_of(rows: list[Row]) -> float:
    """The die's mean over the last ten seconds."""
    return fmean(row.die_celsius for row in rows if row.seconds > rows[-1].seconds - 10)
