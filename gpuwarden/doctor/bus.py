# SPDX-License-Identifier: Apache-2.0
"""The bus policy: is it there, is it loaded, and may the operators' group call?"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwarden import names
from gpuwarden.doctor.commands import Answer
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question
from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, Text

POLICIES = (
    f"/etc/dbus-1/system.d/{names.BUS_NAME}.conf",
    f"/usr/share/dbus-1/system.d/{names.BUS_NAME}.conf",
)
SOCKET = "/run/dbus/system_bus_socket"
_RELOAD = "systemctl reload dbus"
_DENIED = "Access denied"
_PING = (
    *("busctl", "--system", "--auto-start=no", "--timeout=4", "call", names.BUS_NAME),
    *(names.ROOT_OBJECT, "org.freedesktop.DBus.Peer", "Ping"),
)

# docs/operate.md, "On the bus": root and the group may call, nobody else.
_POLICY = Question(
    "bus policy",
    f"installed, loaded, and the group {names.OPERATORS_GROUP} may call",
    "without it the guard can't take its name, and nobody sees or steers the node over the bus",
)


@dataclass(frozen=True, slots=True)
class BusFacts:
    """The policy's file and what the bus makes of it.

    :ivar policy: the path of the policy that counts; empty where there is none.
    :ivar members: of the operators' group; None where there is no such group.
    :ivar guard_runs: whether the guard's unit is active; None where systemd says nothing.
    :ivar own: what a call of ours gets.
    :ivar as_member: what a member's call gets; None where nobody could be tried.
    """

    is_root: bool
    has_bus: bool
    policy: str
    members: Sequence[str] | None
    guard_runs: bool | None
    own: Answer
    as_member: Answer | None


def read(node: Node) -> BusFacts:
    """Call the service, as ourselves and (as root) in a member's name."""
    members = _members(node.text("/etc/group"))
    guard = node.units.get(names.GUARD_UNIT)
    has_bus = node.path(SOCKET).exists()
    runs = guard.is_active if guard else None
    tried = has_bus and runs
    return BusFacts(
        is_root=node.is_root,
        has_bus=has_bus,
        policy=next((path for path in POLICIES if node.path(path).is_file()), ""),
        members=members,
        guard_runs=runs,
        own=node.run(_PING) if tried else Answer("", "not tried"),
        as_member=_as_member(node, members) if tried and node.is_root and members else None,
    )


def judge(facts: BusFacts) -> list[Finding]:
    """One finding."""
    return [_policy(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def _members(group_file: Text) -> list[str] | None:
    lines = [] if isinstance(group_file, Absence) else group_file.splitlines()
    for line in lines:
        name, _, rest = line.partition(":")
        if name == names.OPERATORS_GROUP:
            return [word for word in rest.rpartition(":")[2].split(",") if word]
    return None


def _as_member(node: Node, members: Sequence[str]) -> Answer:
    """The bus knows a caller by the kernel's word, so it takes a process of the member's."""
    group = names.OPERATORS_GROUP
    who = ("--reuid", members[0], "--regid", group, "--init-groups", "--")
    return node.run(["setpriv", *who, *_PING])


def _policy(facts: BusFacts) -> Finding:
    return _lack(facts) or _calls(facts, facts.members or ())


def _lack(facts: BusFacts) -> Finding | None:
    """What keeps calls from being made, or from telling anything; None where nothing does."""
    if not facts.has_bus:
        return _POLICY.unknown("there is no system bus: a container, perhaps")
    if not facts.policy:
        return _POLICY.wrong("not installed", "apt install --reinstall gpuwarden")
    if facts.members is None:
        mend = f"systemd-sysusers gpuwarden.conf; {_RELOAD}"
        return _POLICY.wrong(f"there is no group {names.OPERATORS_GROUP}", mend)
    if not facts.guard_runs:
        found = f"{facts.policy}; whether it is loaded shows once the guard runs"
        return _POLICY.unknown(found, f"systemctl start {names.GUARD_UNIT}")
    return None


def _calls(facts: BusFacts, members: Sequence[str]) -> Finding:
    """What the calls have shown of the policy."""
    if facts.own.problem and not facts.is_root:
        return _POLICY.unknown(f"this user's call: {facts.own.problem}", AS_ROOT)
    if _DENIED in facts.own.problem:
        return _POLICY.wrong(f"root's call: {facts.own.problem}", _RELOAD)
    if facts.own.problem:  # a guard that hangs says nothing of the policy
        found = f"root's call: {facts.own.problem}"
        return _POLICY.unknown(found, f"systemctl status {names.GUARD_UNIT}")
    if facts.as_member is None or not members:
        nobody = "" if members else f"; the group {names.OPERATORS_GROUP} is empty"
        return _POLICY.good(f"{'root' if facts.is_root else 'this user'} may call{nobody}")
    return _members_call(members[0], facts.as_member)


def _members_call(member: str, answer: Answer) -> Finding:
    if _DENIED in answer.problem:
        return _POLICY.wrong(f"{member}'s call: {answer.problem}", _RELOAD)
    if answer.problem:
        return _POLICY.unknown(f"root may call; {member}: {answer.problem}")
    return _POLICY.good(f"root and {member} of the group may call")
