# SPDX-License-Identifier: Apache-2.0
"""What is known while the supervisor is silent: put together from what each part says itself.

The thermal guards and the gateway publish their states, systemd knows the workers' units, and the
supervisor's own code makes one status of it. What it alone knows is the last that it has published.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from gpuwarden import __version__, names
from gpuwarden.cli.busctl import NotRunningError
from gpuwarden.cli.known import Known, Origins
from gpuwarden.cli.output import duration, number
from gpuwarden.cli.units import unit_facts_now
from gpuwarden.control.snapshot import (
    Data,
    Snapshot,
    SnapshotError,
    boottime_nanoseconds,
    read_snapshot,
)
from gpuwarden.control.states import GatewayData, GuardData, PlanData, ThermalData
from gpuwarden.guard.kernel import allowed_cpus, inference_priority, processes
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.guard.status import Seen, summarise
from gpuwarden.values import ServiceState, ThermalState


@dataclass(frozen=True)
class _Pieces:
    """What the parts have published, at one moment."""

    now: int
    plan: Snapshot[PlanData] | None
    cards: Mapping[int, Snapshot[ThermalData]]
    gateway: Snapshot[GatewayData] | None

    @property
    def fresh_cards(self) -> dict[int, ThermalData]:
        return {n: each.data for n, each in self.cards.items() if each.is_fresh(self.now)}

    @property
    def fresh_gateway(self) -> GatewayData | None:
        fresh = self.gateway is not None and self.gateway.is_fresh(self.now)
        return self.gateway.data if self.gateway and fresh else None


def remains(why: str) -> Known:
    """The status without the supervisor.

    :param why: why it doesn't answer.
    :raises NotRunningError: there is nothing.
    """
    former, missing = None, ""
    try:
        former = read_snapshot(names.GUARD_STATE_FILE, GuardData)
    except SnapshotError as error:
        missing = str(error)
    now = boottime_nanoseconds()
    if former is not None and former.is_fresh(now) and _is_alive(former.pid):
        said = _said(former, now)
        return Known(former.data, f"{why}. Below is its state, {said}", origins=_all(said))
    pieces = _pieces()
    units = unit_facts_now(_worker_units(pieces.plan))
    if pieces.plan is not None and units is not None:
        data = _summary(pieces, pieces.plan.data, units, former.data if former else None)
        by_systemd = "by systemd, now"
    elif former is not None:
        data, by_systemd = _refreshed(former.data, pieces), ""
    else:
        raise NotRunningError(f"{why}; nor is there a last state: {missing}")
    rest = f"LAST KNOWN, {_said(former, now)}" if former else "nothing was ever published"
    caveat = f"{why}. Below is what its parts say themselves" + (
        f", else its LAST KNOWN state, {_said(former, now)}" if former else ""
    )
    return Known(
        data.model_copy(
            update={
                "state": ServiceState.DEGRADED,
                "reasons": [why, *data.reasons],
                "gpus": [_with_age(card, pieces) for card in data.gpus],
            }
        ),
        caveat,
        is_down=True,
        origins=_origins(pieces, workers=by_systemd or rest, rest=rest),
    )


def _summary(
    pieces: _Pieces, plan: PlanData, units: Mapping[int, UnitFacts], former: GuardData | None
) -> GuardData:
    """The supervisor's own summary of what it would see now."""
    workers = former.workers if former else []
    data = summarise(
        Seen(
            version=former.version if former else __version__,
            plan=plan,
            units=units,
            processes={n: processes(facts.control_group) for n, facts in units.items()},
            cpus={n: allowed_cpus(facts.main_pid) for n, facts in units.items()},
            priorities={n: inference_priority(facts.main_pid) for n, facts in units.items()},
            thermal=pieces.fresh_cards,
            gateway=pieces.fresh_gateway,
            tuning=former.tuning if former else None,
            was_ready=frozenset(units),  # so that one that is not up gives a reason
            unwanted=frozenset(each.number for each in workers if not each.wanted),
            held={each.gpu: each.held for each in workers if each.held},
        )
    )
    if former is None:
        return data
    kept = {name: getattr(former, name) for name in ("orphans", "scans", "events")}
    return data.model_copy(update=kept)


def _refreshed(former: GuardData, pieces: _Pieces) -> GuardData:
    """Its last state, with what the parts say now."""
    cards = pieces.fresh_cards
    gpus = [cards.get(card.index) or _blind(card) for card in former.gpus]
    # Nobody goes on with what was being done.
    workers = [each.model_copy(update={"operation": ""}) for each in former.workers]
    changed = {"gpus": gpus, "gateway": pieces.fresh_gateway, "workers": workers}
    return former.model_copy(update=changed)


def _blind(card: ThermalData) -> ThermalData:
    unknown = ("temperature_celsius", "memory_temperature_celsius", "power_watts", "utilization")
    return card.model_copy(
        update={
            **dict.fromkeys(unknown),
            "vram_used_bytes": None,
            "state": ThermalState.BLIND,
            "reason": f"its thermal guard says nothing "
            f"(systemctl status {names.thermal_unit(card.index)})",
        }
    )


def _with_age(card: ThermalData, pieces: _Pieces) -> ThermalData:
    """The card; of one whose guard is silent also what that said last, and when."""
    snapshot = pieces.cards.get(card.index)
    if snapshot is None or snapshot.is_fresh(pieces.now):
        return card
    was = snapshot.data
    told = f"{was.state}, {number(was.temperature_celsius, ' C')}"
    reason = f"{card.reason}; LAST KNOWN, {_said(snapshot, pieces.now)}: {told}"
    return card.model_copy(update={"reason": reason, "since": was.since})


def _pieces() -> _Pieces:
    plan = _last(names.PLAN_FILE, PlanData)
    cards = dict(_cards(plan.data if plan else None))
    gateway = _last(names.GATEWAY_STATE_FILE, GatewayData)
    # The clock after the files: one that was written in between would be of the future.
    return _Pieces(boottime_nanoseconds(), plan, cards, gateway)


def _cards(plan: PlanData | None) -> Iterable[tuple[int, Snapshot[ThermalData]]]:
    indices = {card.index for card in plan.cards} if plan else set()
    for file in names.thermal_snapshot_file(0).parent.glob("*.json"):
        if file.stem.isascii() and file.stem.isdigit():
            indices.add(int(file.stem))
    for index in sorted(indices):
        snapshot = _last(names.thermal_snapshot_file(index), ThermalData)
        if snapshot is not None:
            yield index, snapshot


def _last(file: Path, kind: type[Data]) -> Snapshot[Data] | None:
    with suppress(SnapshotError):  # one part that has left nothing is no reason to show no other
        return read_snapshot(file, kind)
    return None


def _worker_units(plan: Snapshot[PlanData] | None) -> dict[int, str]:
    planned = plan.data.workers if plan else []
    return {worker.number: names.worker_unit(worker.number) for worker in planned}


def _origins(pieces: _Pieces, workers: str, rest: str) -> Origins:
    ages = [
        each.age_seconds(pieces.now) for each in pieces.cards.values() if each.is_fresh(pieces.now)
    ]
    cards = f"by their thermal guards, {_ago(max(ages))}" if ages else "no thermal guard speaks"
    gateway = f"by the gateway, {_ago(_age(pieces.gateway, pieces.now))}"
    if pieces.fresh_gateway is None:
        gateway = "the gateway is silent"
        if pieces.gateway is not None:
            gateway += f", {_said(pieces.gateway, pieces.now)}"
    return Origins(workers, cards, gateway, rest)


def _all(said: str) -> Origins:
    return replace(Origins(), workers=said, cards=said, gateway=said, rest=said)


def _said(snapshot: Snapshot[Data], now: int) -> str:
    return f"written {_ago(_age(snapshot, now))}"


def _age(snapshot: Snapshot[Data] | None, now: int) -> float:
    return snapshot.age_seconds(now) if snapshot else 0.0


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago" if seconds >= 0 else "before the last boot"


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
