# SPDX-License-Identifier: Apache-2.0
"""A node with a card in alert, and what the screen makes of it."""

from collections.abc import Sequence

from gpuwarden.cli.known import Known, Origins
from gpuwarden.cli.live.board import Seen
from gpuwarden.cli.live.cards import Paper
from gpuwarden.cli.live.lines import Line, Size
from gpuwarden.cli.live.session import Session
from gpuwarden.cli.live.trail import Sample, Trail
from gpuwarden.cli.live.views import screen
from gpuwarden.cli.sparkline import BLOCKS
from gpuwarden.control.states import GuardData
from gpuwarden.values import ServiceState, ThermalState, WorkerState
from tests.unit.cli.samples import NOW_UNIX_SECONDS, gpu, guard, happened, worker

SSH = Size(80, 24)  # what every terminal has


def hot_node(**changes: object) -> GuardData:
    hot = gpu(
        0,
        state=ThermalState.ALERT,
        temperature_celsius=84.0,
        alert_celsius=83.0,
        critical_celsius=90.0,
        power_limit_watts=450.0,
        original_power_limit_watts=700.0,
        utilization=0.97,
        reason="held under 83 C",
    )
    failed = worker(1, state=WorkerState.FAILED, last_error="no room on the card")
    values: dict[str, object] = {
        "state": ServiceState.DEGRADED,
        "reasons": ["GPU 0 is in alert", "worker 1 failed: no room on the card"],
        "gpus": [hot, gpu(1)],
        "workers": [worker(0), failed],
        "events": [happened(60 - n, f"event {n}") for n in range(40)],
    }
    return guard(**(values | changes))


def trail_of(index: int, *celsius: float, every_seconds: float = 20.0) -> Trail:
    count = len(celsius)
    times = (NOW_UNIX_SECONDS - every_seconds * (count - 1 - n) for n in range(count))
    return {index: tuple(Sample(at, each) for at, each in zip(times, celsius, strict=True))}


def seen(data: GuardData, trail: Trail | None = None, error: str = "", caveat: str = "") -> Seen:
    return Seen(Known(data, caveat, bool(caveat), Origins()), trail or {}, error)


def shown(
    data: GuardData | Seen,
    session: Session | None = None,
    size: Size = SSH,
    levels: str = BLOCKS,
    details: Sequence[Line] = (),
) -> list[str]:
    what = data if isinstance(data, Seen) else seen(data)
    paper = Paper(NOW_UNIX_SECONDS, size.columns, levels)
    return [each.text for each in screen(what, session or Session(), details, size, paper)]
