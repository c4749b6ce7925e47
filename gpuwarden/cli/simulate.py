# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden simulate``: what a guard's policy would make of a card that is not there."""

import argparse
import json
from functools import partial
from pathlib import Path

from gpuwarden.chart.output import SUFFIXES, PillowMissingError, draw_to_file
from gpuwarden.chart.series import Moment
from gpuwarden.chart.thermal import ThermalRecord, thermal_drawing
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import UNKNOWN, warn
from gpuwarden.cli.working import working
from gpuwarden.plant.cards import PRESETS
from gpuwarden.plant.scenario import Scenario, ScenarioError, load_scenario
from gpuwarden.simulate.constant import BestConstant, best_constant
from gpuwarden.simulate.evaluation import Evaluation, as_json, evaluate
from gpuwarden.simulate.rehearsal import Run, rehearse
from gpuwarden.thermal.policy import POLICIES, make_policy

EXAMPLES = "/usr/share/gpuwarden/scenarios"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--card CARD --scenario FILE --policy POLICY [--best-constant] [--plot FILE] [--json]``."""
    parser.add_argument("--card", required=True, choices=list(PRESETS), help="which card")
    parser.add_argument(
        "--scenario",
        required=True,
        type=Path,
        metavar="FILE",
        help=f"what happens to it, as JSON; examples are in {EXAMPLES}",
    )
    parser.add_argument("--policy", required=True, choices=POLICIES, help="who guards it")
    parser.add_argument(
        "--best-constant",
        action="store_true",
        help="look for the best that one constant setting could have done",
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help=f"draw the run ({' or '.join(SUFFIXES)})"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Rehearse, judge, print; good whenever it ran."""
    if arguments.plot is not None and arguments.plot.suffix.lower() not in SUFFIXES:
        allowed = " or ".join(SUFFIXES)
        raise CommandError(
            f"--plot {arguments.plot}: the file's name must end in {allowed}", Exit.BAD_USE
        )
    try:
        scenario = load_scenario(arguments.scenario)
    except ScenarioError as error:
        for line in str(error).splitlines():
            warn(line)
        return Exit.BAD_USE
    _simulate(arguments, scenario)
    return Exit.GOOD


def _simulate(arguments: argparse.Namespace, scenario: Scenario) -> None:
    """Raises CommandError where the drawing can't be made; the figures are printed before."""
    policy, with_best = arguments.policy, arguments.best_constant
    with working("simulating"):
        run = rehearse(PRESETS[arguments.card], scenario, partial(make_policy, policy))
        best = best_constant(run.card, scenario, run.thresholds) if with_best else None
        holdable = (best is not None) if with_best else None
        evaluation = evaluate(run, arguments.scenario.stem, policy, holdable)
    if arguments.json:
        print(json.dumps(as_json(evaluation, best, with_best=with_best), indent=2))
    else:
        print("\n".join(lines(evaluation, best, with_best=with_best)))
    if arguments.plot is not None:
        _plot(run, evaluation, arguments.plot)


def _plot(run: Run, evaluation: Evaluation, file: Path) -> None:
    limits = run.thresholds
    record = ThermalRecord(
        title=f"{evaluation.card} simulated, {evaluation.scenario}, {evaluation.policy}",
        moments=_drawn(run),
        alert_celsius=limits.alert_celsius,
        critical_celsius=limits.critical_celsius,
        memory_alert_celsius=limits.memory_alert_celsius,
        memory_critical_celsius=limits.memory_critical_celsius,
    )
    try:
        draw_to_file(thermal_drawing(record), file)
    except PillowMissingError as error:
        raise CommandError(str(error), Exit.WRONG) from error
    except OSError as error:
        raise CommandError(f"{file} can't be written: {error.strerror}", Exit.WRONG) from error


def _drawn(run: Run) -> list[Moment]:
    original = run.card.limit_default_watts
    return [
        Moment(
            at_seconds=each.seconds,
            state=each.judgement.state,
            celsius=each.die_celsius,
            memory_celsius=each.memory_celsius,
            watts=each.watts,
            limit_watts=each.judgement.settings.power_limit_watts or original,
        )
        for each in run.moments
    ]


def lines(evaluation: Evaluation, best: BestConstant | None, *, with_best: bool) -> list[str]:
    """The figures for people."""
    seen = evaluation
    rows = [
        ("die", _peak(seen.peak_celsius, seen.alert_celsius, seen.critical_celsius)),
        ("HBM", _most(seen.peak_memory_celsius)),
        ("above alert", f"{seen.seconds_above_alert:.1f} s"),
        ("by over 1 C", f"{seen.seconds_above_alert_plus_1:.1f} s"),
        ("critical", f"{seen.seconds_at_or_above_critical:.1f} s"),
        ("at a time", f"{seen.longest_critical_seconds:.1f} s at most"),
        ("work done", _share(seen.throughput_ratio)),
        ("writes", f"{seen.writes}, {seen.writes_per_hour:.0f} an hour"),
        ("swings by", _known(seen.steady_peak_to_peak_celsius, "C at the end")),
        ("limit back in", _known(seen.recovery_seconds, "s")),
        ("at the end", _end(seen)),
        ("holdable", "yes" if seen.holdable else "no, not even with the least power"),
    ]
    if with_best:
        rows.append(("best constant", _best(best)))
    head = f"{seen.card}, {seen.scenario}, {seen.policy}, {seen.duration_seconds:g} s (SIMULATED)"
    return [head, *(f"  {name:<15}{text}" for name, text in rows)]


def _peak(celsius: float, alert: float, critical: float) -> str:
    return f"{_most(celsius)} (alert {alert:g}, critical {critical:g})"


def _most(celsius: float | None) -> str:
    return UNKNOWN if celsius is None else f"at most {celsius:.1f} C"


def _known(value: float | None, unit: str) -> str:
    return UNKNOWN if value is None else f"{value:.1f} {unit}"


def _share(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio * 100:.1f} % of what was asked for"


def _end(seen: Evaluation) -> str:
    clock = "" if seen.final_sm_clock_mhz is None else f", SM at most {seen.final_sm_clock_mhz} MHz"
    batch = "" if seen.final_batch_limit is None else f", batches of {seen.final_batch_limit}"
    duty = "" if seen.final_dispatch_duty >= 1 else f", duty {seen.final_dispatch_duty:.2f}"
    limit = f"{seen.final_limit_watts:.0f} of {seen.original_limit_watts:.0f} W"
    return f"{seen.final_state}, {limit}{clock}{batch}{duty}"


def _best(best: BestConstant | None) -> str:
    if best is None:
        return "none"
    clock = "" if best.sm_clock_mhz is None else f", SM at most {best.sm_clock_mhz} MHz"
    return f"{best.limit_watts:.0f} W{clock}: {_share(best.throughput_ratio)}"
