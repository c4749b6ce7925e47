# SPDX-License-Identifier: Apache-2.0
"""The NVIDIA driver: is it there, of one version, does it answer, does it keep its state?"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gpuwarden import names
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question
from gpuwarden.doctor.node import PERSISTENCE_UNIT, Node
from gpuwarden.doctor.places import Absence, Text
from gpuwarden.nvml.child import ChildError, in_child
from gpuwarden.nvml.library import LIBRARY_VARIABLE, Library, Session, choose_library

DEADLINE_SECONDS = 5.0  # a healthy driver answers within one, cold start included (design)
# NVIDIA's oldest long-term branch that still got fixes this year: docs.nvidia.com/datacenter/tesla/
# drivers, "Driver lifecycle". Ours is measured with 580 (docs/thermal-h200.md).
OLDEST_KEPT_BRANCH = 535
# nvml.h: NVML_ERROR_LIB_RM_VERSION_MISMATCH, as gpuwarden.nvml.errors words it.
MISMATCH = "of different versions"

_DRIVER = Question(
    "NVIDIA driver",
    f"loaded, version {OLDEST_KEPT_BRANCH} or newer, the same as its library's",
    "without it no model runs; a library of another version than the module refuses every call",
)
# design, "A hung driver": an NVML call may never come back, and no signal ends it.
_NVML = Question(
    "NVML",
    f"answers within {DEADLINE_SECONDS:.0f} s and shows every planned card",
    "the thermal guards see and cool the cards through it",
)
# docs.nvidia.com/deploy/driver-persistence: the driver forgets a card's settings when its last
# client leaves. Our thermal guards keep cards open, so it is no more than a doubt.
_PERSISTENCE = Question(
    "persistence daemon",
    "nvidia-persistenced active, or persistence mode on every card",
    "without it the driver forgets power limits when the last process closes a card, and the next "
    "start is slow",
)


@dataclass(frozen=True, slots=True)
class NvmlAnswer:
    """What NVML says of itself and its cards.

    :ivar persistent: whether every card has persistence mode; None where that isn't said.
    """

    driver_version: str | None
    nvml_version: str | None
    uuids: list[str]
    faults: list[str]
    persistent: bool | None


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """The kernel's word, NVML's word, and what is planned.

    :ivar simulated: whether the library in use is the simulator's.
    :ivar nvml: what NVML answers, or why it doesn't.
    :ivar planned: UUIDs of the cards that the plan has as present.
    :ivar persistenced: whether its unit is active; None where systemd says nothing.
    """

    is_root: bool
    simulated: bool
    kernel: Text
    nvml: NvmlAnswer | str
    planned: tuple[str, ...]
    persistenced: bool | None


def read(node: Node, deadline_seconds: float = DEADLINE_SECONDS) -> DriverFacts:
    """Ask the kernel, and NVML in a child that is left behind if it hangs."""
    unit = node.units.get(PERSISTENCE_UNIT)
    library = choose_library(_environment(node))
    return DriverFacts(
        is_root=node.is_root,
        simulated=library.simulated,
        kernel=node.text("/proc/driver/nvidia/version"),
        nvml=ask_in_child(lambda: asdict(_answer(library)), deadline_seconds),
        planned=tuple(card.uuid for card in node.plan.cards if card.present) if node.plan else (),
        persistenced=unit.is_active if unit else None,
    )


def judge(facts: DriverFacts) -> list[Finding]:
    """Driver, NVML, persistence."""
    return [_driver(facts), _nvml(facts), _persistence(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def kernel_version(text: str) -> str:
    """The module's version in /proc/driver/nvidia/version; empty where there is none."""
    match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", text)
    return match[1] if match else ""


def _environment(node: Node) -> Mapping[str, str]:
    """Ours, and the library that the service's own units are given."""
    unit = node.units.get(names.NUMA_UNIT)
    words = unit.environment.split() if unit else []
    given = dict(word.split("=", 1) for word in words if word.startswith(f"{LIBRARY_VARIABLE}="))
    return {**given, **os.environ}


def ask_in_child(ask: Callable[[], dict[str, Any]], deadline_seconds: float) -> NvmlAnswer | str:
    """NVML's answer, or in words why there is none."""
    try:
        return NvmlAnswer(**in_child(ask, deadline_seconds))
    except ChildError as error:
        return str(error)


def _answer(library: Library) -> NvmlAnswer:
    with Session(library) as session:
        enumeration = session.cards()
        return NvmlAnswer(
            driver_version=session.driver_version(),
            nvml_version=session.nvml_version(),
            uuids=[card.uuid for card in enumeration.cards],
            faults=enumeration.faults,
            persistent=session.persistent(),
        )


def _driver(facts: DriverFacts) -> Finding:
    nvml = facts.nvml
    if facts.simulated:
        version = nvml.driver_version if isinstance(nvml, NvmlAnswer) else None
        return _DRIVER.not_applicable(f"SIMULATED, version {version or 'unknown'}")
    loaded = "" if isinstance(facts.kernel, Absence) else kernel_version(facts.kernel)
    if facts.kernel is Absence.MISSING:
        return _DRIVER.wrong(
            "not loaded", "modprobe nvidia  # install the driver first where there is none"
        )
    if not loaded:
        return _DRIVER.unknown("the kernel doesn't tell the version", "nvidia-smi")
    return _versions(loaded, nvml)


def _versions(loaded: str, nvml: NvmlAnswer | str) -> Finding:
    """The module's version against its library's, and against what is still kept."""
    if isinstance(nvml, str) and MISMATCH in nvml:
        return _DRIVER.wrong(f"{loaded}, but the library is another's", "systemctl reboot")
    if isinstance(nvml, NvmlAnswer) and nvml.driver_version not in (None, loaded):
        found = f"module {loaded}, library {nvml.driver_version}"
        return _DRIVER.wrong(found, "systemctl reboot")
    if int(loaded.split(".", maxsplit=1)[0]) < OLDEST_KEPT_BRANCH:
        why = "NVIDIA mends this branch no more, and it was never tried with gpuwarden"
        return _DRIVER.doubtful(
            loaded, "apt install nvidia-driver  # a newer one, then reboot", why
        )
    return _DRIVER.good(loaded)


def _nvml(facts: DriverFacts) -> Finding:
    nvml = facts.nvml
    if isinstance(nvml, str) and facts.kernel is Absence.MISSING and not facts.simulated:
        return _NVML.unknown("there is no driver to ask")
    if isinstance(nvml, str):
        if not facts.is_root:
            return _NVML.unknown(nvml, AS_ROOT)
        return _NVML.wrong(nvml, "nvidia-smi; journalctl -k --grep 'NVRM|nvidia'")
    missing = [uuid for uuid in facts.planned if uuid not in nvml.uuids]
    if nvml.faults or missing:
        gone = [f"{uuid} does not answer" for uuid in missing]
        return _NVML.wrong("; ".join([*nvml.faults, *gone]), "nvidia-smi -L; journalctl -k")
    if not nvml.uuids:
        return _NVML.wrong("it shows no card", "lspci -d 10de: ; journalctl -k")
    version = nvml.nvml_version or "of an unknown version"
    cards = "1 card" if len(nvml.uuids) == 1 else f"{len(nvml.uuids)} cards"
    return _NVML.good(f"{version}, {cards}")


def _persistence(facts: DriverFacts) -> Finding:
    nvml = facts.nvml
    if facts.simulated:
        return _PERSISTENCE.not_applicable("the cards are SIMULATED")
    if facts.kernel is Absence.MISSING:
        return _PERSISTENCE.not_applicable("no driver is loaded")
    if facts.persistenced:
        return _PERSISTENCE.good("nvidia-persistenced is active")
    persistent = nvml.persistent if isinstance(nvml, NvmlAnswer) else None
    if persistent:
        return _PERSISTENCE.good("persistence mode is on")
    if persistent is None and facts.persistenced is None:
        return _PERSISTENCE.unknown("neither systemd nor the driver can be asked")
    return _PERSISTENCE.doubtful("off", f"systemctl enable --now {PERSISTENCE_UNIT}")
