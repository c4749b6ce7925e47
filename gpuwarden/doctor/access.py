# SPDX-License-Identifier: Apache-2.0
"""Folders, files and devices: do they belong to those who need them, and to nobody else?

What our folders should be is read from the tmpfiles.d file that makes them, so there is one place
that says it; an administrator's own file of the same name goes before ours, as for systemd.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question
from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, absence

TMPFILES = ("/etc/tmpfiles.d/gpuwarden.conf", "/usr/lib/tmpfiles.d/gpuwarden.conf")
WORKER_USER = "gpuwarden-worker"
CONFIGURATION_FOLDER = names.CONFIG_FILE.parent

_FOLDERS = Question(
    "permissions of folders",
    "as systemd-tmpfiles makes them",
    "each part writes into a folder of its own, and patients' data is its owner's alone",
)  # docs/architecture.md, "State anybody can read"; packaging/tmpfiles
_FILES = Question(
    "permissions of the configuration",
    "root's, writable for root alone",
    "whoever can write it decides what runs here: [workers] python names a program",
)
# The driver's own default is 0666 (NVreg_DeviceFileMode, README of the driver, chapter 5).
_DEVICES = Question(
    "devices for the workers",
    f"{WORKER_USER} may read and write them",
    "a worker that can't open its card's devices finds no GPU",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in the file system, as it is or as it should be."""

    path: str
    owner: str
    group: str
    mode: int
    is_folder: bool = True

    @property
    def rights(self) -> str:
        """``root:root 0755``."""
        return f"{self.owner}:{self.group} {self.mode:04o}"


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """What is wanted of our folders, and what is there.

    :ivar found: in the order of ``wanted``.
    :ivar files: the configuration's files and folders.
    :ivar devices: NVIDIA's device nodes of the planned cards.
    :ivar worker_groups: the groups of the workers' user, its name among them.
    """

    tmpfiles: str
    wanted: Sequence[Entry]
    found: Sequence[Entry | Absence]
    files: Sequence[Entry]
    devices: Sequence[Entry]
    simulated: bool
    worker_groups: Sequence[str]


def read(node: Node) -> AccessFacts:
    """Raises OSError where the disk fails."""
    accounts = Accounts.of(node)
    source, wanted = _tmpfiles(node)
    found = [_entry(node, each.path, accounts) for each in wanted]
    folder = node.path(CONFIGURATION_FOLDER)
    below = (path for kind in ("*.toml", "conf.d", "conf.d/*.toml") for path in folder.glob(kind))
    paths = [folder, *sorted(below)]
    configuration = [_entry(node, f"/{path.relative_to(node.root)}", accounts) for path in paths]
    devices = [_entry(node, path, accounts) for path in _device_paths(node)]
    return AccessFacts(
        tmpfiles=source,
        wanted=wanted,
        found=found,
        files=[each for each in configuration if isinstance(each, Entry)],
        devices=[each for each in devices if isinstance(each, Entry)],
        simulated=bool(node.plan and node.plan.simulated),
        worker_groups=accounts.groups_of(WORKER_USER),
    )


def judge(facts: AccessFacts) -> list[Finding]:
    """Folders, configuration, devices."""
    return [_folders(facts), _configuration(facts.files), _devices(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


@dataclass(frozen=True, slots=True)
class Accounts:
    """Users and groups of the machine, by number, from its own files."""

    users: dict[int, str]
    groups: dict[int, str]
    members: dict[str, frozenset[str]]

    @classmethod
    def of(cls, node: Node) -> "Accounts":
        """Raises OSError where the disk fails."""
        users = _records(node, "/etc/passwd")
        groups = _records(node, "/etc/group")
        return cls(
            users={int(each[2]): each[0] for each in users if each[2].isdigit()},
            groups={int(each[2]): each[0] for each in groups if each[2].isdigit()},
            members={each[0]: frozenset(each[3].split(",")) - {""} for each in groups},
        )

    def groups_of(self, user: str) -> list[str]:
        """The groups that ``user`` is in; the one of its own name is its first."""
        return [user, *(group for group, members in self.members.items() if user in members)]


def _records(node: Node, path: str) -> list[list[str]]:
    text = node.text(path)
    lines = [] if isinstance(text, Absence) else text.splitlines()
    return [fields for line in lines if len(fields := line.split(":")) >= 4]


def _tmpfiles(node: Node) -> tuple[str, list[Entry]]:
    """The file that counts, and its folders; no file: not installed from the package."""
    for path in TMPFILES:
        text = node.text(path)
        if not isinstance(text, Absence):
            return path, parse_tmpfiles(text)
    return "", []


def parse_tmpfiles(text: str) -> list[Entry]:
    """The folders of a tmpfiles.d file (lines of type d)."""
    rows = [line.split() for line in text.splitlines()]
    return [
        Entry(path=words[1], owner=words[3], group=words[4], mode=int(words[2], 8))
        for words in rows
        if len(words) >= 5 and words[0] == "d" and _is_octal(words[2])
    ]


def _is_octal(word: str) -> bool:
    return 0 < len(word) <= 5 and set(word) <= set("01234567")


def _entry(node: Node, path: str, accounts: Accounts) -> Entry | Absence:
    try:
        status = Path(node.path(path)).stat()
    except OSError as error:
        return absence(error)
    return Entry(
        path=path,
        owner=accounts.users.get(status.st_uid, str(status.st_uid)),
        group=accounts.groups.get(status.st_gid, str(status.st_gid)),
        mode=stat.S_IMODE(status.st_mode),
        is_folder=stat.S_ISDIR(status.st_mode),
    )


def _device_paths(node: Node) -> list[str]:
    minors = [card.minor for card in node.plan.cards if card.present] if node.plan else []
    cards = [f"/dev/nvidia{minor}" for minor in minors if minor is not None]
    return ["/dev/nvidiactl", "/dev/nvidia-uvm", *cards]


def _folders(facts: AccessFacts) -> Finding:
    if not facts.tmpfiles:
        return _FOLDERS.unknown("there is no tmpfiles.d file: not installed from the package")
    problems, unseen = [], 0
    for wanted, found in zip(facts.wanted, facts.found, strict=False):
        if found is Absence.DENIED:
            unseen += 1
        elif isinstance(found, Absence):
            problems.append(f"{wanted.path} is not there")
        elif problem := _difference(wanted, found):
            problems.append(problem)
    if problems:
        mend = f"systemd-tmpfiles --create {Path(facts.tmpfiles).name}"
        return _FOLDERS.wrong("; ".join(problems), mend)
    if unseen:
        return _FOLDERS.unknown(f"{unseen} of {len(facts.wanted)} are closed to this user", AS_ROOT)
    return _FOLDERS.good(f"all {len(facts.wanted)} of {facts.tmpfiles}")


def _difference(wanted: Entry, found: Entry) -> str:
    if not found.is_folder:
        return f"{wanted.path} is no folder"
    if found.rights == wanted.rights:
        return ""
    return f"{wanted.path} is {found.rights}, not {wanted.rights}"


def _configuration(files: Sequence[Entry]) -> Finding:
    if not files:
        return _FILES.not_applicable(f"there is no {CONFIGURATION_FOLDER}: the defaults apply")
    loose = [each for each in files if each.owner != "root" or each.mode & _others(each)]
    if not loose:
        return _FILES.good(f"all {len(files)}")
    found = _shown(loose)
    paths = " ".join(each.path for each in loose)
    return _FILES.wrong(found, f"chown root:root {paths}; chmod go-w {paths}")


def _shown(entries: Sequence[Entry]) -> str:
    return "; ".join(f"{each.path} is {each.rights}" for each in entries)


def _others(entry: Entry) -> int:
    """Who else might write; root's own group may."""
    return stat.S_IWOTH if entry.group == "root" else stat.S_IWOTH | stat.S_IWGRP


def _devices(facts: AccessFacts) -> Finding:
    if facts.simulated:
        return _DEVICES.not_applicable("the cards are SIMULATED")
    if not facts.devices:
        return _DEVICES.not_applicable("there are none: no driver, or nobody has used it yet")
    closed = [each for each in facts.devices if not _may_use(each, facts.worker_groups)]
    if not closed:
        return _DEVICES.good(", ".join(each.path for each in facts.devices))
    found = _shown(closed)
    group = closed[0].group
    if group == "root":
        mend = "set NVreg_DeviceFileMode=0666 for the module nvidia in /etc/modprobe.d, then reboot"
        return _DEVICES.wrong(found, mend)
    return _DEVICES.wrong(found, f"adduser {WORKER_USER} {group}  # then restart the workers")


def _may_use(entry: Entry, groups: Sequence[str]) -> bool:
    if entry.owner == WORKER_USER:
        return entry.mode & 0o600 == 0o600
    if entry.group in groups:
        return entry.mode & 0o060 == 0o060
    return entry.mode & 0o006 == 0o006
