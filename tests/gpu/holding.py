# SPDX-License-Identifier: Apache-2.0
"""Software alone holds a card's mean temperature: the guard's policy, no setter, real work.

``python -m tests.gpu.holding FOLDER`` measures what batches and duty do to the card, lowers the
alert threshold to where 60 % duty would hold it, lets the policy hold it there, and writes
``holding.csv`` and ``holding.json``. Reads only.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from gpuwarden.gateway.duty import DutyMeter
from gpuwarden.nvml.card import Sample
from gpuwarden.nvml.library import choose_library
from gpuwarden.thermal.decision import Authority, Settings
from gpuwarden.thermal.observation import Seen, reading_of
from gpuwarden.thermal.policy.regulated import Regulated
from gpuwarden.thermal.sampler import Sampler
from gpuwarden.thermal.thresholds import Thresholds, thresholds_of
from tests.gpu.cards import first_card, sampler_of, write_json
from tests.gpu.reading_only import forbid_setters
from tests.gpu.worker import TrialWorker

SAMPLE_SECONDS = 0.2
MAX_BATCH = 4
LOADING_SECONDS = 180.0
SAFE_BELOW_ALERT_CELSIUS = 6.0
CALIBRATION_DUTY = 0.6
MEAN_SECONDS = 10.0


@dataclass(frozen=True)
class Phase:
    """A part of a trial.

    :ivar alert_celsius: the threshold in force; None: the card's own.
    :ivar fixed: settings that replace the policy's.
    """

    name: str
    seconds: float
    working: bool = True
    alert_celsius: float | None = None
    fixed: Settings | None = None


@dataclass(frozen=True)
class Row:
    """One sample. ``requests`` counts those answered since the beginning."""

    seconds: float
    phase: str
    die_celsius: float
    hbm_celsius: float
    watts: float
    alert_celsius: float
    state: str
    batch_limit: int
    dispatch_duty: float
    requests: int


@dataclass
class Cost:
    """CPU time of the thread in reading and deciding; observations that were doubted."""

    cpu_seconds: float = 0.0
    samples: int = 0
    refused: list[str] = field(default_factory=list)


class Serving:
    """Requests without end for one worker, within a batch limit and a duty."""

    def __init__(self, worker: TrialWorker) -> None:
        self.requests = 0
        self.working = False
        self._worker = worker
        self._meter = DutyMeter()
        self._batch_limit = MAX_BATCH
        self._batch = 0
        self._started = 0.0

    def limit(self, settings: Settings, now: float) -> None:
        """Go by these from now on."""
        self._batch_limit = min(MAX_BATCH, settings.batch_limit or MAX_BATCH)
        self._meter.set_duty(settings.dispatch_duty, now)

    def serve_until(self, end: float) -> None:
        """Give the worker batches and take its answers."""
        while (now := time.monotonic()) < end:
            if self._batch:
                gpu_seconds = self._worker.answer(end - now)
                if gpu_seconds is not None:
                    self._done(gpu_seconds)
            elif self.working and self._meter.permits(0, now):
                self._batch, self._started = self._batch_limit, now
                self._meter.set_running(1, now)
                self._worker.start(self._batch)
            else:
                rested = self._meter.rested_at() if self.working else None
                time.sleep(max(0.0, min(end, rested or end) - now))

    def finish(self) -> None:
        """Take in no more; wait for the last answer."""
        self.working = False
        while self._batch:
            self.serve_until(time.monotonic() + SAMPLE_SECONDS)

    def _done(self, gpu_seconds: float) -> None:
        now = time.monotonic()
        self._meter.batch_ended(self._started, gpu_seconds, now)
        self._meter.set_running(0, now)
        self.requests += self._batch
        self._batch = 0


class Trial:
    """Runs phases over one card, one policy, one worker."""

    def __init__(self, sampler: Sampler, worker: TrialWorker) -> None:
        first = sampler.attempt()
        assert isinstance(first, Seen), first
        self.cost = Cost()
        self.own = thresholds_of(first.limits)
        # Nothing on the card can be set, as on a virtual GPU: batches and duty are all there is.
        self._authority = Authority(
            rated_watts=first.limits.power_default_watts,
            max_batch=MAX_BATCH,
            shutdown_celsius=first.limits.shutdown_celsius,
        )
        self._policy = Regulated(self._authority, self.own)
        self._sampler = sampler
        self._serving = Serving(worker)
        self._began = time.monotonic()

    def run(self, phases: Iterable[Phase]) -> list[Row]:
        """All phases, one after the other, without a break."""
        rows: list[Row] = []
        self._began = due = time.monotonic()
        self._serving.requests = 0
        end = self._began
        for phase in phases:
            self._policy.adopt(self._authority, self._thresholds(phase))
            self._serving.working = phase.working
            end += phase.seconds
            while due < end - SAMPLE_SECONDS / 2:
                self._serving.serve_until(due)
                row = self._look(phase)
                if row is not None:
                    rows.append(row)
                due += SAMPLE_SECONDS
        self._serving.finish()
        return rows

    def _thresholds(self, phase: Phase) -> Thresholds:
        if phase.alert_celsius is None:
            return self.own
        return Thresholds(
            alert_celsius=phase.alert_celsius,
            critical_celsius=self.own.critical_celsius,
            safe_celsius=phase.alert_celsius - SAFE_BELOW_ALERT_CELSIUS,
            memory_alert_celsius=self.own.memory_alert_celsius,
            memory_critical_celsius=self.own.memory_critical_celsius,
        )

    def _look(self, phase: Phase) -> Row | None:
        now, cpu = time.monotonic(), time.thread_time()
        seen = self._sampler.attempt()
        self.cost.samples += 1
        if not isinstance(seen, Seen):
            self.cost.refused.append(f"{now - self._began:.1f} s: {seen.text}")
            return None
        judgement = self._policy.decide(reading_of(seen, now))
        self.cost.cpu_seconds += time.thread_time() - cpu
        settings = phase.fixed or judgement.settings
        self._serving.limit(settings, now)
        return _row(now - self._began, phase, self._thresholds(phase).alert_celsius, seen.sample,
                    settings, str(judgement.state), self._serving.requests)  # fmt: skip


def _row(
    seconds: float,
    phase: Phase,
    alert: float,
    sample: Sample,
    settings: Settings,
    state: str,
    requests: int,
) -> Row:
    return Row(
        seconds=round(seconds, 2),
        phase=phase.name,
        die_celsius=sample.temperature_celsius or 0.0,
        hbm_celsius=sample.memory_temperature_celsius or 0.0,
        watts=round(sample.power_watts or 0.0, 1),
        alert_celsius=alert,
        state=state,
        batch_limit=min(MAX_BATCH, settings.batch_limit or MAX_BATCH),
        dispatch_duty=round(settings.dispatch_duty, 3),
        requests=requests,
    )


def calibrate(trial: Trial, seconds: float) -> list[dict[str, float | str]]:
    """What the card has at rest, at full work by batch size, and at 60 % duty."""
    tried = [
        Phase("rest", seconds / 2, working=False),
        *(Phase(f"batches of {n}", seconds, fixed=Settings(batch_limit=n)) for n in (4, 2, 1)),
        Phase(f"duty {CALIBRATION_DUTY:g}", seconds,
              fixed=Settings(dispatch_duty=CALIBRATION_DUTY)),
    ]  # fmt: skip
    rows = trial.run(tried)
    return [summary([row for row in rows if row.phase == phase.name]) for phase in tried]


def summary(rows: list[Row]) -> dict[str, float | str]:
    """One phase in figures; temperatures and watts over its last ten seconds."""
    last = [row for row in rows if row.seconds > rows[-1].seconds - MEAN_SECONDS]
    work = last[-1].requests - last[0].requests
    return {
        "phase": rows[0].phase,
        "die_mean_celsius": round(fmean(row.die_celsius for row in last), 2),
        "die_lowest_celsius": min(row.die_celsius for row in last),
        "die_highest_celsius": max(row.die_celsius for row in last),
        "hbm_mean_celsius": round(fmean(row.hbm_celsius for row in last), 2),
        "watts_mean": round(fmean(row.watts for row in last), 1),
        "watts_highest": max(row.watts for row in last),
        "requests_per_second": round(work / (last[-1].seconds - last[0].seconds), 2),
    }


def held(alert_celsius: float, scale: float = 1.0) -> list[Phase]:
    """The trial itself: rest, full work, held under a lowered alert, and that taken back."""
    return [
        Phase("rest", 30 * scale, working=False),
        Phase("full", 60 * scale),
        Phase("held", 180 * scale, alert_celsius=alert_celsius),
        Phase("given back", 60 * scale),
    ]


def write_csv(rows: list[Row], path: Path) -> None:
    """The samples, one a line."""
    with path.open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([each.name for each in fields(Row)])
        for row in rows:
            writer.writerow([_plain(value) for value in astuple(row)])


def _plain(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def run_trial(folder: Path, scale: float = 1.0, alert_celsius: float | None = None) -> None:
    """Calibrate, hold, write what was seen into ``folder``."""
    library = choose_library()
    card, driver = first_card(library)
    with TrialWorker(card.uuid) as worker:
        worker.wait_until_ready(LOADING_SECONDS)
        sampler = sampler_of(card, folder, library)
        trial = Trial(sampler, worker)
        calibration = calibrate(trial, 20 * scale)
        print(*calibration, sep="\n", flush=True)
        alert = alert_celsius or round(float(calibration[-1]["die_mean_celsius"]))
        trial.cost = Cost()
        rows = trial.run(held(alert, scale))
        sampler.close()
    write_csv(rows, folder / "holding.csv")
    seconds = rows[-1].seconds - rows[0].seconds
    write_json(
        folder / "holding.json",
        {
            "card": card.name,
            "driver": driver,
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "alert_celsius": alert,
            "calibration": calibration,
            "samples": trial.cost.samples,
            "refused": trial.cost.refused,
            "cpu_share": round(trial.cost.cpu_seconds / seconds, 5),
            "phases": [summary([r for r in rows if r.phase == p.name]) for p in held(alert)],
            "own_thresholds": asdict(trial.own),
        },
    )


def main(arguments: list[str]) -> int:
    """Run the trial on the first card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="of all durations")
    parser.add_argument("--alert", type=float, help="the lowered threshold (default: measured)")
    options = parser.parse_args(arguments)
    forbid_setters()
    options.folder.mkdir(parents=True, exist_ok=True)
    run_trial(options.folder, options.scale, options.alert)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
