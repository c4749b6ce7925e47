# SPDX-License-Identifier: Apache-2.0
"""What a recording is made from: the front door, the thermal guards, and how the node is set."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gpuwarden import __version__
from gpuwarden.baseline.recording import RecordedCard
from gpuwarden.baseline.windows import Page
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.frontdoor import Connection
from gpuwarden.control.states import ThermalData
from gpuwarden.doctor.checks import Told, examine
from gpuwarden.doctor.findings import Verdict
from gpuwarden.doctor.node import Node, look
from gpuwarden.metrics.sources import Places, read

# The doctor's subjects that say how host and service are set; the others say how they do.
SUBJECTS = frozenset({"driver", "placement", "processors", "memory", "storage", "kernel", "tuner"})
# What moves by itself, and is no setting.
RESTLESS = frozenset({"memory", "clock"})
MACHINE_ID = Path("/etc/machine-id")
PAGE_LIMIT_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Surroundings:
    """The node, as far as it is set: which it is, and by name what is set how."""

    host: str
    machine: str
    simulated: bool
    cards: list[RecordedCard]
    settings: dict[str, str] = field(default_factory=dict)


def page(connection: Connection) -> Page:
    """The front door's metrics. Raises CommandError: nobody answers, or refuses."""
    with connection.get("/metrics") as (reply, blocks):
        content = b"".join(blocks)[:PAGE_LIMIT_BYTES]
    if reply.status != 200:
        text = f"the front door's /metrics: {reply.message}"
        raise CommandError(text, Exit.UNREACHABLE if reply.status >= 500 else Exit.WRONG)
    families = text_string_to_metric_families(content.decode("utf-8", "replace"))
    return Page(
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }
    )


def models(connection: Connection) -> list[str]:
    """The models that workers run now. Raises CommandError."""
    data = connection.ask("GET", "/v1/models").document.get("data", [])
    return sorted(str(model.get("id")) for model in data if isinstance(model, dict))


def cards(places: Places) -> Mapping[int, ThermalData]:
    """The cards whose guards speak."""
    return read(places).thermal


def surroundings(places: Places) -> Surroundings:
    """What there is and how it is set, now."""
    node = look()
    published = read(places)
    planned = published.plan.cards if published.plan else []
    host = os.uname()
    settings = {
        "gpuwarden": __version__,
        "kernel": host.release,
        **configured(node),
        **found(examine(node)),
        **_limits(published.thermal),
    }
    if published.guard is not None:
        settings["tuned profile"] = published.guard.profile or "none"
    return Surroundings(
        host=host.nodename,
        machine=_machine(),
        simulated=bool(published.plan and published.plan.simulated),
        cards=[RecordedCard(index=c.index, uuid=c.uuid, name=c.name) for c in planned],
        settings=settings,
    )


def configured(node: Node) -> dict[str, str]:
    """Every setting of the configuration, as ``[workers] max_batch``."""
    if node.configuration is None:
        return {}
    sections: dict[str, dict[str, Any]] = node.configuration.model_dump(mode="json")
    return {
        f"[{section}] {key}": json.dumps(value, sort_keys=True)
        for section, keys in sections.items()
        for key, value in keys.items()
    }


def found(told: list[Told]) -> dict[str, str]:
    """What the doctor has found of the host; what it can't see is not there."""
    return {
        f"{each.subject}: {each.finding.name}": each.finding.found
        for each in told
        if each.subject in SUBJECTS
        and each.finding.verdict is not Verdict.UNKNOWN
        and each.finding.name not in RESTLESS
        and not each.finding.name.startswith("disk space")
    }


def _limits(thermal: Mapping[int, ThermalData]) -> dict[str, str]:
    """The administrator's power limits and what the guards hold the cards to."""
    settings = {}
    for index, data in thermal.items():
        if data.original_power_limit_watts is not None:
            settings[f"GPU {index}: power limit"] = f"{data.original_power_limit_watts:.0f} W"
        if data.alert_celsius is not None:
            settings[f"GPU {index}: alert"] = f"{data.alert_celsius:.0f} C"
    return settings


def _machine() -> str:
    """Tells this node from others; the machine's own ID is nobody's business (machine-id(5))."""
    try:
        identity = MACHINE_ID.read_bytes().strip()
    except OSError:
        identity = os.uname().nodename.encode()
    return hashlib.sha256(b"gpuwarden baseline " + identity).hexdigest()[:12]
