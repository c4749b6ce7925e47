# SPDX-License-Identifier: Apache-2.0
"""Other programs that hold a card's limits, its fans, or the CPUs' clocks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.doctor import dcgm, setters
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question
from gpuwarden.doctor.node import POWER_UNITS, Node
from gpuwarden.doctor.places import Absence, Text, folders, text_of

LACT_CONFIGURATION = "/etc/lact/config.yaml"
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "python3", "perl"})
_RUNNERS = _SHELLS | {"watch"}

# LACT's configuration (docs/CONFIG.md): these set more than a fan.
_LACT_LIMITS = re.compile(
    r"^\s*(power_cap|(min|max)_(core|memory)_clock|gpu_clock_offsets|mem_clock_offsets)\s*:"
    r"(?!\s*(null\b|\{\}))",
    re.MULTILINE,
)

_LIMITS = Question(
    "other holders of card limits",
    "none",
    "two regulators of one card fight: ours takes each foreign value for the administrator's, and "
    "the other one lifts what ours needs to cool it",
)  # docs/architecture.md, "What the administrator had"
# tuned.service of tuned names them in Conflicts=; TLP's documentation, "runtime power management".
_POWER = Question(
    "power daemons",
    "none beside tuned",
    "they lower clocks and let devices sleep, which is meant for notebooks",
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that is known to reach for a card."""

    holds: str
    is_wrong: bool


# By the name of the program. Wrong is what sets limits or clocks by itself, as long as it runs;
# what only turns fans, or waits for its user, is a doubt.
TOOLS: Mapping[str, Tool] = {
    "nvidia-pstated": Tool("performance states by load", is_wrong=True),
    "lact": Tool("limits and fans by its configuration", is_wrong=False),
    "lactd": Tool("limits and fans by its configuration", is_wrong=False),
    "coolercontrold": Tool("fans", is_wrong=False),
    "nvfancontrol": Tool("fans", is_wrong=False),
    "gwe": Tool("power limit and fans, when its user says so", is_wrong=False),
    "nvidia-powerd": Tool("power between CPU and GPU, on notebooks", is_wrong=False),
    "nv-hostengine": Tool("DCGM's policies and configurations", is_wrong=False),
}


@dataclass(frozen=True, slots=True)
class Running:
    """A process that may be a rival.

    :ivar script: what its first argument holds where it is an interpreter with a script.
    :ivar unit: the unit that it belongs to; empty where it is none of the system's.
    """

    pid: int
    arguments: tuple[str, ...]
    script: str
    unit: str
    transient: bool = False


@dataclass(frozen=True, slots=True)
class RivalFacts:
    """Processes, timers and tables that set cards, and the power daemons.

    :ivar sees_all: whether other users' processes can be seen.
    :ivar timed: files that run a setter again and again: units with a timer, cron's tables.
    :ivar dcgm: what DCGM says that it enforces; None where it doesn't run.
    :ivar power_units: the state of each power daemon; empty where systemd says nothing.
    """

    sees_all: bool
    running: Sequence[Running]
    timed: Sequence[str]
    lact: Text
    dcgm: dcgm.Dcgm | None
    power_units: Mapping[str, str]
    tuning: bool


def read(node: Node) -> RivalFacts:
    """Raises OSError where the disk fails."""
    running = [each for each in _processes(node) if is_suspect(each)]
    names = {_program(each) for each in running}
    units = node.units
    return RivalFacts(
        sees_all=isinstance(node.text("/proc/1/cmdline"), str),
        running=running,
        timed=setters.timed(node),
        lact=node.text(LACT_CONFIGURATION),
        dcgm=dcgm.ask(node.run) if "nv-hostengine" in names else None,
        power_units={name: units[name].active for name in POWER_UNITS if name in units},
        tuning=bool(node.configuration and node.configuration.tuning.enabled),
    )


def judge(facts: RivalFacts) -> list[Finding]:
    """Who else holds the cards, who else the CPUs."""
    return [*_limits(facts), _power(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def is_suspect(process: Running) -> bool:
    """Whether it is a tool that is known, or sets a card through nvidia-smi."""
    return _program(process) in TOOLS or _sets(process)


def _sets(process: Running) -> bool:
    """Again and again: whoever sets a card once, by hand or at boot, is its administrator."""
    if not process.arguments or Path(process.arguments[0]).name not in _RUNNERS:
        return False
    text = "\n".join([" ".join(process.arguments), process.script])
    return setters.sets_again(text)


def _program(process: Running) -> str:
    """The tool among the first two words: an interpreter comes before its script."""
    words = [Path(word).name for word in process.arguments[:2]]
    return next((word for word in words if word in TOOLS), words[0] if words else "")


def _processes(node: Node) -> list[Running]:
    found = []
    for folder in folders(node.path("/proc")):
        if folder.name.isdigit() and (process := _process(node, folder)):
            found.append(process)
    return found


def _process(node: Node, folder: Path) -> Running | None:
    command = text_of(folder / "cmdline")
    if isinstance(command, Absence) or not command:
        return None
    arguments = tuple(command.rstrip("\0").split("\0"))
    group = text_of(folder / "cgroup")
    last = "" if isinstance(group, Absence) else group.rpartition("/")[2]
    unit = last if last.endswith(".service") and not last.startswith("user@") else ""
    return Running(
        pid=int(folder.name),
        arguments=arguments,
        script=_script(node, arguments),
        unit=unit,
        transient=bool(unit) and node.path(f"/run/systemd/transient/{unit}").exists(),
    )


def _script(node: Node, arguments: Sequence[str]) -> str:
    """The script that an interpreter runs: a loop of its own is not in its command line."""
    if len(arguments) < 2 or Path(arguments[0]).name not in _SHELLS or arguments[1][:1] != "/":
        return ""
    return setters.small_text(node.path(arguments[1]))


def _limits(facts: RivalFacts) -> list[Finding]:
    found = [_judged(each, facts) for each in facts.running]
    timed = [
        _LIMITS.wrong(f"{path} sets a card again and again", _end_of_timed(path))
        for path in facts.timed
    ]
    everything = [*timed, *(each for each in found if each)]
    if everything:
        return everything
    if not facts.sees_all:
        return [_LIMITS.unknown("other users' processes are hidden from this user", AS_ROOT)]
    return [_LIMITS.good("none")]


def _judged(process: Running, facts: RivalFacts) -> Finding | None:
    """What this process means; None where it holds nothing."""
    program = _program(process)
    name = f"{program} (PID {process.pid}{f', {process.unit}' if process.unit else ''})"
    end = _end_of(process)
    if _sets(process):
        return _LIMITS.wrong(f"{name} runs nvidia-smi, which sets a card", end)
    tool = TOOLS.get(program, Tool("what is unknown", is_wrong=False))
    if program == "nv-hostengine":
        return _dcgm(name, end, facts.dcgm)
    found = f"{name} holds {tool.holds}"
    holds_limits = isinstance(facts.lact, str) and _LACT_LIMITS.search(facts.lact)
    if tool.is_wrong or (program.startswith("lact") and holds_limits):
        return _LIMITS.wrong(found, end)
    return _LIMITS.doubtful(found, f"{end}  # or keep it off power limits and clocks")


def _dcgm(name: str, end: str, found: dcgm.Dcgm | None) -> Finding | None:
    """DCGM that only measures is no rival: None."""
    if found is None or found.problem:
        reason = found.problem if found else "it was not asked"
        text = f"{name}; what it enforces is unknown: {reason}"
        return _LIMITS.doubtful(text, "dcgmi config --get")
    if found.held:
        mend = f"{end}  # or take them out of its configuration: dcgmi config --set"
        return _LIMITS.wrong(f"{name} enforces {', '.join(found.held)}", mend)
    if found.action:
        why = "a card may be reset beneath the workers that run on it"
        text = f"{name} answers a violated policy with: {found.action}"
        return _LIMITS.doubtful(text, "dcgmi policy --clear", why)
    return None


def _end_of(process: Running) -> str:
    if process.transient:
        return f"systemctl stop {process.unit}"
    return f"systemctl disable --now {process.unit}" if process.unit else f"kill {process.pid}"


def _end_of_timed(path: str) -> str:
    if path.endswith(".timer"):
        return f"systemctl disable --now {Path(path).name}"
    return f"sensible-editor {path}  # take the line with nvidia-smi out"


def _power(facts: RivalFacts) -> Finding:
    if not facts.power_units:
        return _POWER.unknown("systemd can't be asked")
    active = [name for name, state in facts.power_units.items() if state == "active"]
    if not active:
        return _POWER.good("none")
    mend = f"systemctl disable --now {' '.join(active)}"
    if facts.tuning:
        why = "tuned and it stop each other, so [tuning] is without effect"
        return _POWER.wrong(", ".join(active), mend, why)
    return _POWER.doubtful(", ".join(active), mend)
