# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden gpus``: the cards."""

import argparse
import json
from collections.abc import Sequence

from gpuwarden.cli.exits import Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import (
    coloured,
    duration,
    fitted,
    gibibytes,
    number,
    of,
    table,
    unix_now,
    warn,
)
from gpuwarden.cli.service import get_status_or_last
from gpuwarden.control.states import ThermalData
from gpuwarden.values import ThermalState

BAD_STATES = frozenset({ThermalState.CRITICAL, ThermalState.BLIND, ThermalState.LOST})
_HOT_STATES = frozenset({ThermalState.ALERT, ThermalState.RECOVERING, ThermalState.RELEASED})
_HEADER = ("GPU", "STATE", "TEMP C", "HBM C", "WATTS", "LOAD %", "VRAM GiB", "NUMA", "FOR", "NAME")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the cards; 1 when one is critical, blind or lost."""
    known = get_status_or_last()
    warn(known.caveat)
    gpus = known.data.gpus
    if arguments.json:
        print(json.dumps([gpu.model_dump(mode="json") for gpu in gpus], indent=2))
    else:
        print("\n".join(gpu_lines(gpus, unix_now()) + _shortcomings(gpus)))
    if not known.is_live:
        return Exit.UNREACHABLE
    return Exit.WRONG if any(gpu.state in BAD_STATES for gpu in gpus) else Exit.GOOD


def gpu_lines(gpus: Sequence[ThermalData], now_unix_seconds: float) -> list[str]:
    """The cards as a table, and why one of them isn't normal."""
    if not gpus:
        return ["  no cards known"]
    header, *rows = table(_HEADER, [_row(gpu, now_unix_seconds) for gpu in gpus])
    lines = [fitted(header)]
    for gpu, row in zip(gpus, rows, strict=True):
        lines.append(coloured(fitted(row), card_colour(gpu)))
    return lines + [fitted(f"  gpu {gpu.index}: {gpu.reason}") for gpu in gpus if gpu.reason]


def card_colour(gpu: ThermalData) -> str:
    """How a card's row is painted."""
    if gpu.state in BAD_STATES:
        return "bad"
    return "warn" if gpu.state in _HOT_STATES else ""


def _row(gpu: ThermalData, now_unix_seconds: float) -> tuple[str, ...]:
    load_percent = None if gpu.utilization is None else gpu.utilization * 100
    return (
        str(gpu.index),
        gpu.state,
        number(gpu.temperature_celsius),
        number(gpu.memory_temperature_celsius),
        of(number(gpu.power_watts), number(gpu.power_limit_watts)),
        number(load_percent),
        of(gibibytes(gpu.vram_used_bytes), gibibytes(gpu.vram_total_bytes)),
        number(gpu.numa_node) if gpu.numa_node >= 0 else number(None),
        duration(now_unix_seconds - gpu.since / 1e6),
        gpu.name,
    )


def _shortcomings(gpus: Sequence[ThermalData]) -> list[str]:
    return [
        fitted(f"  gpu {gpu.index}: {actuator} can't be used: {reason}")
        for gpu in gpus
        for actuator, reason in sorted(gpu.actuators.items())
        if reason
    ]
