# SPDX-License-Identifier: Apache-2.0
"""What the NVML module reads of a card, and what each call costs. Reads only.

``python -m tests.gpu.survey [--json] [--loop-seconds 60]``
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from gpuwarden.nvml import calls
from gpuwarden.nvml.card import CardIdentity
from gpuwarden.nvml.errors import NvmlError, translate
from gpuwarden.nvml.events import NO_EVENT_YET, XID_EVENT
from gpuwarden.nvml.library import OpenCard, Session, choose_library
from gpuwarden.nvml.vocabulary import Clock, Field, Threshold, Violation
from gpuwarden.thermal.observation import Seen
from tests.gpu.cards import first_card, sampler_of
from tests.gpu.reading_only import forbid_setters

CALLS = 200
SLOW_CALLS = 50  # of a call that takes more than a millisecond, or is refused
SLOW_SECONDS = 0.001
SAMPLE_SECONDS = 0.2
POWER_AVERAGE_FIELD = 185  # for comparison: the module doesn't read it
CONDITION_FIELDS = (230, 74, 269, 270, 271)
Row = tuple[str, str, Callable[[], Any]]  # name, unit, how it is read
FIELD_UNITS = {
    Field.MEMORY_TEMPERATURE: "C",
    Field.POWER_INSTANTANEOUS_MILLIWATTS: "mW",
    Field.POWER_LIMIT_REQUESTED_MILLIWATTS: "mW",
    Field.SHUTDOWN_OFFSET: "C on T.Limit",
    Field.SLOWDOWN_OFFSET: "C on T.Limit",
    Field.MEMORY_MAXIMUM_OFFSET: "C on T.Limit",
    Field.MAXIMUM_OPERATING_OFFSET: "C on T.Limit",
    Field.RECOVERY_ACTION: "action",
}


@dataclass(frozen=True)
class Reading:
    """One reading; times in microseconds."""

    name: str
    unit: str
    value: str
    supported: bool
    calls: int
    median_us: float
    p99_us: float


@dataclass(frozen=True)
class Loop:
    """The guard's sampler, 5 times a second, alone in its process."""

    seconds: float
    samples: int
    refused: int
    cpu_share: float
    anonymous_mib: float


@dataclass(frozen=True)
class Survey:
    """Everything."""

    card: str
    driver: str
    date: str
    readings: list[Reading]
    loop: Loop | None


class Raw:
    """pynvml's calls for one card, as the module makes them."""

    def __init__(self, card: CardIdentity) -> None:
        self.uuid, self.pci_address = card.uuid, card.pci_address
        self.handle = self.by("nvmlDeviceGetHandleByUUID", card.uuid)
        self.events = calls.call("survey", "nvmlEventSetCreate")

    def by(self, function: str, name: str) -> Any:
        return calls.call("survey", function, name)

    def get(self, function: str, *arguments: object) -> Any:
        return calls.call("survey", function, self.handle, *arguments)

    def fields(self, *numbers: int) -> Any:
        answers = calls.call("survey", "nvmlDeviceGetFieldValues", self.handle, list(numbers))
        if all(answer.nvmlReturn for answer in answers):
            raise translate(answers[0].nvmlReturn, f"field {numbers[0]}")
        return [getattr(a.value, calls._VALUE_MEMBERS[a.valueType]) for a in answers]

    def field(self, number: int) -> Any:
        return self.fields(number)[0]

    def memory(self) -> Any:
        found = self.get("nvmlDeviceGetMemoryInfo")
        return f"{found.used >> 20} of {found.total >> 20}"

    def sm_clocks(self) -> Any:
        memory = self.get("nvmlDeviceGetSupportedMemoryClocks")
        found = self.get("nvmlDeviceGetSupportedGraphicsClocks", memory[0])
        return f"{len(found)} from {min(found)} to {max(found)}"

    def violation(self, kind: Violation) -> int:
        return int(self.get("nvmlDeviceGetViolationStatus", int(kind)).violationTime)

    def create_events(self) -> str:
        created = calls.call("survey", "nvmlEventSetCreate")
        calls.call("survey", "nvmlEventSetFree", created)
        return "created, freed"

    def wait(self) -> str:
        try:
            event = calls.call("survey", "nvmlEventSetWait_v2", self.events, 0)
        except NvmlError as error:
            if error.code != NO_EVENT_YET:
                raise
            return "no event"
        return f"event {event.eventType}: {event.eventData}"


def measured(name: str, unit: str, read: Callable[[], Any]) -> Reading:
    """One reading's value and its cost over many calls."""
    times: list[float] = []
    value, supported, wanted = "", True, CALLS
    while len(times) < wanted:
        before = time.perf_counter()
        try:
            value = str(read())
        except NvmlError as error:
            value, supported, wanted = error.meaning, False, SLOW_CALLS
        times.append(time.perf_counter() - before)
        if len(times) == 5 and sorted(times)[2] > SLOW_SECONDS:
            wanted = SLOW_CALLS
    times.sort()
    median, p99 = times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]
    return Reading(
        name, unit, value, supported, len(times), round(median * 1e6, 1), round(p99 * 1e6, 1)
    )


def raw_readings(raw: Raw) -> list[Reading]:
    """Every call that the module makes, one by one."""
    rows = [*_sampled(raw), *_by_field(raw), *_condition(raw), *_limits(raw), *_rest(raw)]
    return [measured(*row) for row in rows]


def _sampled(raw: Raw) -> list[Row]:
    get = raw.get
    return [
        ("HandleByUUID", "", lambda: bool(raw.by("nvmlDeviceGetHandleByUUID", raw.uuid))),
        ("HandleByPciBusId", "",
         lambda: bool(raw.by("nvmlDeviceGetHandleByPciBusId", raw.pci_address))),
        ("TemperatureV", "C", partial(get, "nvmlDeviceGetTemperatureV", calls.DIE_SENSOR)),
        ("Temperature", "C", partial(get, "nvmlDeviceGetTemperature", calls.DIE_SENSOR)),
        ("MarginTemperature", "C", partial(get, "nvmlDeviceGetMarginTemperature")),
        ("PowerUsage", "mW", partial(get, "nvmlDeviceGetPowerUsage")),
        (f"field {POWER_AVERAGE_FIELD}, power average", "mW",
         partial(raw.field, POWER_AVERAGE_FIELD)),
    ]  # fmt: skip


def _by_field(raw: Raw) -> list[Row]:
    rows: list[Row] = []
    for field in Field:
        unit = FIELD_UNITS.get(field, "ns")
        rows.append((f"field {field}, {_words(field.name)}", unit, partial(raw.field, field)))
    rows.append(("fields 82 and 186 at once", "C, mW", partial(raw.fields, 82, 186)))
    together = partial(raw.fields, *CONDITION_FIELDS)
    rows.append(("fields 230, 74, 269 to 271 at once", "", together))
    return rows


def _condition(raw: Raw) -> list[Row]:
    get = raw.get
    rows: list[Row] = [
        ("UtilizationRates", "%", lambda: get("nvmlDeviceGetUtilizationRates").gpu),
        ("CurrentClocksEventReasons", "bits",
         partial(get, "nvmlDeviceGetCurrentClocksEventReasons")),
        ("CurrentClocksThrottleReasons", "bits",
         partial(get, "nvmlDeviceGetCurrentClocksThrottleReasons")),
        ("PowerManagementLimit", "mW", partial(get, "nvmlDeviceGetPowerManagementLimit")),
        ("PowerManagementLimitConstraints", "mW",
         partial(get, "nvmlDeviceGetPowerManagementLimitConstraints")),
        ("PowerManagementDefaultLimit", "mW",
         partial(get, "nvmlDeviceGetPowerManagementDefaultLimit")),
        ("MemoryInfo", "MiB", raw.memory),
    ]  # fmt: skip
    return rows + [
        (f"ViolationStatus {_words(kind.name)}", "ns", partial(raw.violation, kind))
        for kind in Violation
    ]


def _limits(raw: Raw) -> list[Row]:
    return [
        (
            f"TemperatureThreshold {_words(kind.name)}",
            "C",
            partial(raw.get, "nvmlDeviceGetTemperatureThreshold", int(kind)),
        )
        for kind in Threshold
    ]


def _rest(raw: Raw) -> list[Row]:
    get = raw.get
    register = partial(get, "nvmlDeviceRegisterEvents", XID_EVENT, raw.events)
    return [
        ("SupportedMemoryClocks", "MHz", partial(get, "nvmlDeviceGetSupportedMemoryClocks")),
        ("SupportedGraphicsClocks", "MHz", raw.sm_clocks),
        ("ClockInfo SM", "MHz", partial(get, "nvmlDeviceGetClockInfo", int(Clock.SM))),
        ("ClockInfo memory", "MHz", partial(get, "nvmlDeviceGetClockInfo", int(Clock.MEMORY))),
        ("Architecture", "", partial(get, "nvmlDeviceGetArchitecture")),
        ("CudaComputeCapability", "", partial(get, "nvmlDeviceGetCudaComputeCapability")),
        ("SupportedEventTypes", "bits", partial(get, "nvmlDeviceGetSupportedEventTypes")),
        ("EventSetCreate and Free", "", raw.create_events),
        ("RegisterEvents (XID)", "", register),
        ("EventSetWait(0)", "", raw.wait),
    ]


def whole_readings(card: OpenCard) -> list[Reading]:
    """What the guard calls: many of the above at once."""
    reader = card.reader
    found = [
        measured("CardReader.sample()", "", reader.sample),
        measured("CardReader.condition()", "", reader.condition),
        measured("CardReader.limits()", "", reader.limits),
        measured("XidEvents.drain()", "", card.events.drain),
    ]
    card.events.close()
    return found


def loop(seconds: float, folder: Path) -> Loop:
    """Sample as the guard does, and count what it costs."""
    card, _ = first_card(choose_library())
    sampler = sampler_of(card, folder)
    sampler.attempt()
    samples = refused = 0
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds:
        seen = isinstance(sampler.attempt(), Seen)
        samples, refused = samples + 1, refused + (not seen)
        time.sleep(max(0.0, began + samples * SAMPLE_SECONDS - time.monotonic()))
    passed, used = time.monotonic() - began, time.process_time() - cpu
    sampler.close()
    memory = round(_anonymous_kib() / 1024, 1)
    return Loop(round(passed, 1), samples, refused, round(used / passed, 5), memory)


def survey(loop_seconds: float, folder: Path) -> Survey:
    """The whole survey of the first card."""
    library = choose_library()
    card, driver = first_card(library)
    sampled = loop(loop_seconds, folder) if loop_seconds else None
    with Session(library) as session:
        readings = raw_readings(Raw(card))
        readings += whole_readings(session.open_whole_card(card.uuid, card.pci_address))
    return Survey(card.name, driver, f"{datetime.now(UTC):%Y-%m-%d}", readings, sampled)


def _anonymous_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if "RssAnon" in line)


def _words(name: str) -> str:
    return name.lower().replace("_", " ").removesuffix(" milliwatts").removesuffix(" nanoseconds")


def main(arguments: list[str]) -> int:
    """Print the survey as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--loop-seconds", type=float, default=60.0)
    options = parser.parse_args(arguments)
    forbid_setters()
    with tempfile.TemporaryDirectory() as folder:
        found = survey(options.loop_seconds, Path(folder))
    if options.json:
        print(json.dumps(asdict(found), indent=1))
        return 0
    print(f"{found.card}, driver {found.driver}")
    for each in found.readings:
        print(f"{each.name:45} {each.median_us:9.1f} {each.p99_us:9.1f} us  "
              f"{each.value[:60]} {each.unit}")  # fmt: skip
    print(found.loop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
