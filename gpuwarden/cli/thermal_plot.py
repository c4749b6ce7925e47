# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden thermal --plot``: a card's last hour as a picture."""

import json
from datetime import datetime
from pathlib import Path

from gpuwarden.chart.output import SUFFIXES, PillowMissingError, draw_to_file
from gpuwarden.chart.thermal import ThermalRecord, thermal_drawing
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.output import warn
from gpuwarden.cli.thermal_sources import HISTORY, CardHeat, look


def plot(gpu_index: int | None, file: Path, *, as_json: bool) -> int:
    """Draw into ``file`` and say so.

    :raises CommandError: a bad name or no card chosen among several (BAD_USE), no history
        (UNREACHABLE), nothing to draw with or nowhere to write (WRONG).
    """
    if file.suffix.lower() not in SUFFIXES:
        allowed = " or ".join(SUFFIXES)
        raise CommandError(f"--plot {file}: the file's name must end in {allowed}", Exit.BAD_USE)
    cards = look(gpu_index)
    if len(cards) > 1:
        indices = ", ".join(str(heat.data.index) for heat in cards)
        raise CommandError(f"--plot draws one card: which of {indices}?", Exit.BAD_USE)
    heat = cards[0]
    if HISTORY in heat.unknown:
        message = f"no history of GPU {heat.data.index} to draw: {heat.caveat}"
        raise CommandError(message, Exit.UNREACHABLE)
    if heat.unknown:
        warn(f"not in the picture: {', '.join(heat.unknown)} ({heat.caveat})")
    try:
        draw_to_file(thermal_drawing(_record(heat)), file)
    except PillowMissingError as error:
        raise CommandError(str(error), Exit.WRONG) from error
    except OSError as error:
        raise CommandError(f"{file} can't be written: {error.strerror}", Exit.WRONG) from error
    if as_json:
        print(json.dumps({"gpu": heat.data.index, "file": str(file), "seconds": len(heat.moments)}))
    else:
        print(f"{file}: GPU {heat.data.index}, {len(heat.moments)} seconds of it")
    return Exit.GOOD


def _record(heat: CardHeat) -> ThermalRecord:
    data = heat.data
    return ThermalRecord(
        title=f"GPU {data.index} {data.name}",
        moments=heat.moments,
        alert_celsius=data.alert_celsius,
        critical_celsius=data.critical_celsius,
        memory_alert_celsius=heat.memory_alert_celsius,
        memory_critical_celsius=heat.memory_critical_celsius,
        zone=datetime.now().astimezone().tzinfo,
    )
