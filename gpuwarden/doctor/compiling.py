# SPDX-License-Identifier: Apache-2.0
"""What a model's worker compiles with: C compiler, interpreter's headers, a folder to run from.

The worker tries all of it at load (worker/engines/transformers/compiler.py); this looks beforehand.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from gpuwarden import names
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question
from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, Text, folders, unread

ENGINE = "transformers"
MOUNTS = "/proc/self/mounts"
FOLDER = "/var/cache/gpuwarden/worker"  # packaging/systemd/medgemma-worker@.service
FOLDER_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
COMPILERS = ("gcc", "clang")  # as Triton looks for them, where CC names none
# A unit's PATH, where nobody has set another (systemd.exec(5)).
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# docs/models.md, "What it needs".
_COMPILER = Question(
    "C compiler",
    "gcc or clang in the workers' PATH, or one that CC names",
    "without one the model's steps run uncompiled: slower, or not at all where compile asks for it",
)
_HEADERS = Question(
    "headers of the workers' interpreter",
    "Python.h beside it",
    "what is compiled for the card is loaded into Python, and built against its headers",
)
_FOLDER = Question(
    "compiled code",
    "a folder that can be written, whose files may be executed",
    "what is compiled is kept there and run from there",
)


@dataclass(frozen=True, slots=True)
class CompilingFacts:
    """What is configured, and what was found for it.

    :ivar why_not: why nothing is compiled here; empty where it is.
    :ivar is_asked_for: whether a worker refuses to start without.
    :ivar compiler: the program; empty where there is none. ``named``: what CC says.
    :ivar headers: of the interpreter ``python``.
    :ivar folder: where compiled code goes.
    """

    why_not: str
    is_asked_for: bool
    is_root: bool
    named: str
    compiler: str
    python: str
    headers: Sequence[str]
    folder: str
    mounts: Text


def read(node: Node) -> CompilingFacts:
    """Raises OSError where a disk fails to answer."""
    environment = _environment(node)
    python = node.configuration.workers.python if node.configuration else ""
    named = environment.get("CC", "")
    path = environment.get("PATH", PATH)
    return CompilingFacts(
        why_not=_why_not(node),
        is_asked_for=_option(node, "compile", "auto") != "auto",
        is_root=node.is_root,
        named=named,
        compiler=_compiler(node, [named] if named else COMPILERS, path.split(":")),
        python=python,
        headers=_headers(node, python) if python else [],
        folder=environment.get(FOLDER_VARIABLE, FOLDER),
        mounts=node.text(MOUNTS),
    )


def judge(facts: CompilingFacts) -> list[Finding]:
    """Compiler, headers, folder."""
    if facts.why_not:
        questions = (_COMPILER, _HEADERS, _FOLDER)
        return [question.not_applicable(facts.why_not) for question in questions]
    return [_compiler_finding(facts), _headers_finding(facts), _folder_finding(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def _option(node: Node, name: str, default: str) -> object:
    return node.configuration.workers.options.get(name, default) if node.configuration else default


def _why_not(node: Node) -> str:
    if node.configuration is None:
        return "the configuration can't be read"
    engine = node.configuration.workers.engine
    if engine != ENGINE:
        return f"the engine is {engine}"
    if _option(node, "compile", "auto") == "none":
        return "[workers.options] compile is none"
    return "the model runs on the CPU" if _option(node, "device", "auto") == "cpu" else ""


def _environment(node: Node) -> Mapping[str, str]:
    """Of the workers' units, as systemd has it; all have the same but for their cards."""
    numbers = [worker.number for worker in node.plan.workers] if node.plan else []
    units = [node.units.get(names.worker_unit(number)) for number in numbers]
    text = next((unit.environment for unit in units if unit), "")
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that systemd wrote in another way
        words = text.split()
    return dict(word.partition("=")[::2] for word in words if "=" in word)


def _compiler(node: Node, wanted: Sequence[str], path: Sequence[str]) -> str:
    places = [
        place
        for name in wanted
        for place in ([name] if name.startswith("/") else [f"{each}/{name}" for each in path])
    ]
    return next((place for place in places if node.path(place).is_file()), "")


def _headers(node: Node, python: str) -> list[str]:
    """Beside the interpreter, or beside the one that its environment was made from."""
    prefix = PurePosixPath(python).parent.parent
    prefixes = [prefix]
    settings = node.text(str(prefix / "pyvenv.cfg"))
    lines = [] if isinstance(settings, Absence) else settings.splitlines()
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "home" and value.strip().startswith("/"):
            prefixes.append(PurePosixPath(value.strip()).parent)
    found = []
    for each in prefixes:
        for folder in folders(node.path(str(each / "include"))):
            if folder.name.startswith("python3") and (folder / "Python.h").is_file():
                found.append(str(each / "include" / folder.name / "Python.h"))
    return found


def _compiler_finding(facts: CompilingFacts) -> Finding:
    if facts.compiler:
        return _COMPILER.good(facts.compiler)
    if facts.named:
        mend = "systemctl edit medgemma-worker@.service  # Environment=CC= names no program"
        return _bad(_COMPILER, facts, f"CC names {facts.named}, and there is no such file", mend)
    return _bad(_COMPILER, facts, "none", "apt install gcc libc6-dev")


def _headers_finding(facts: CompilingFacts) -> Finding:
    if facts.headers:
        return _HEADERS.good(facts.headers[0])
    found = f"no Python.h beside {facts.python}"
    if not facts.is_root and facts.python.startswith(("/home/", "/root/")):
        return _HEADERS.unknown(found, AS_ROOT)
    mend = "apt install python3-dev  # for Debian's own Python; conda's brings its headers along"
    return _bad(_HEADERS, facts, found, mend)


def _folder_finding(facts: CompilingFacts) -> Finding:
    if isinstance(facts.mounts, Absence):
        return unread(_FOLDER, facts.mounts, MOUNTS)
    point, options = _mount_of(facts.folder, facts.mounts)
    for option, remedy in (("noexec", "exec"), ("ro", "rw")):
        if option in options:
            mend = f"mount -o remount,{remedy} {point}  # for good: fstab; or another folder"
            found = f"{facts.folder} lies on {point}, which is mounted {option}"
            return _bad(_FOLDER, facts, found, mend)
    return _FOLDER.good(facts.folder)


def _mount_of(folder: str, mounts: str) -> tuple[str, list[str]]:
    """Where the file system of a folder is mounted, and how; the last mount of a place counts."""
    found: tuple[str, list[str]] = ("/", [])
    place = PurePosixPath(folder)
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 4 or not words[1].startswith("/"):
            continue
        above = PurePosixPath(words[1]) in (place, *place.parents)
        if above and len(words[1]) >= len(found[0]):
            found = (words[1], words[3].split(","))
    return found


def _bad(question: Question, facts: CompilingFacts, found: str, mend: str) -> Finding:
    """Wrong where no worker starts so; else it costs speed."""
    return (question.wrong if facts.is_asked_for else question.doubtful)(found, mend)
