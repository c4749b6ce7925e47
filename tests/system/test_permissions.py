# SPDX-License-Identifier: Apache-2.0
"""Who may what on the bus, as documented: everybody against every member, in a whole node.

An unprivileged user (alice), a member of the group gpuwarden (oscar) and root; with polkit, without
it, and with the rule that the documentation shows.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tests.node.demo import ct_small
from tests.node.vm import Node
from tests.system.service import (
    curl,
    main_pid,
    predict,
    wait_for,
    wait_for_next_life,
    wait_for_state,
)

HERE = Path(__file__).parent
DOCUMENT = (HERE.parents[1] / "docs/dbus.md").read_text()
PROGRAM = "/run/bus_members.py"
LIBRARIES = "PYTHONPATH=/usr/lib/gpuwarden/app:/usr/lib/gpuwarden/vendor"
RULE_FILE = "/etc/polkit-1/rules.d/60-gpuwarden.rules"
# polkit is started by who asks it first, and answers once it has read all rules: that takes some
# of the time that the guard gives it on a busy emulated node.
FIRST_ANSWER = "pkcheck --action-id org.gpuwarden1.manage-workers --process $$"
GATEWAY = "org.gpuwarden1 /org/gpuwarden1/gateway org.gpuwarden1.Gateway"

Row = tuple[str, str]
COLUMNS = ("anybody", "group", "group, no polkit", "group, a rule", "root")


def documented() -> dict[str, dict[Row, str]]:
    """The matrix of docs/dbus.md, by column."""
    lines = re.findall(r"^\| ([^|`]+) \| ([^|]+) \|((?: \w+ \|){5})", DOCUMENT, re.MULTILINE)
    columns: dict[str, dict[Row, str]] = {name: {} for name in COLUMNS}
    for interface, what, cells in lines:
        for name, cell in zip(COLUMNS, cells.replace("|", " ").split(), strict=True):
            columns[name][interface, what] = cell
    assert len(columns["root"]) > 40
    return columns


def asked(node: Node, what: str, *users: str) -> dict[str, list[list[str]]]:
    """What each user tried and came to."""
    told = node.run(
        f"{LIBRARIES} python3 {PROGRAM} {what} {' '.join(users)}", timeout_seconds=300
    ).text
    return dict(json.loads(line) for line in told.splitlines() if line.startswith("["))


def verdicts(tried: list[list[str]]) -> dict[Row, set[str]]:
    """By row of the matrix, what its members came to."""
    found: dict[Row, set[str]] = {}
    for interface, what, _, verdict, _ in tried:
        found.setdefault((interface, what), set()).add(verdict)
    return found


def check(tried: list[list[str]], column: str) -> set[Row]:
    """Assert that each is as that column says; the rows that were tried."""
    expected = documented()[column]
    wrong = [each for each in tried if each[3] != expected.get((each[0], each[1]))]
    assert wrong == [], column
    return set(verdicts(tried))


def changes(node: Node) -> Counter[tuple[str, str, bool]]:
    """Of the journal's entries on changes: outcome, user, and whether its unit is named."""
    lines = node.run(
        "journalctl --no-pager -o json GPUWARDEN_EVENT=change-granted +"
        " GPUWARDEN_EVENT=change-denied"
    ).text.splitlines()
    entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return Counter(
        (each["GPUWARDEN_EVENT"], each["CALLER_UID"], bool(each["CALLER_UNIT"])) for each in entries
    )


def uid(node: Node, user: str) -> str:
    return node.run(f"id -u {user}").text


def test_everybody_may_what_the_documentation_says_and_no_more(node: Node) -> None:
    node.put((HERE / "bus_members.py").read_bytes(), PROGRAM)
    node.run(f"usermod -aG gpuwarden oscar && {FIRST_ANSWER}")
    told = asked(node, "all", "alice", "oscar")
    rows = check(told["alice"], "anybody")
    assert check(told["oscar"], "group") == rows
    calls = {row for row in documented()["root"] if row[1] != "hear its signals"}
    assert rows == calls
    acting = sum(each[3] == "password" for each in told["oscar"])
    assert acting > 15

    heard = asked(node, "hear", "root", "oscar", "alice")
    everything = {"StateChanged", "WorkerStateChanged", "PropertiesChanged"}
    assert {each[2] for each in heard["root"]} >= everything | {"eavesdropping"}
    heard_by_group = {each[2] for each in heard["oscar"]}
    assert heard_by_group >= everything
    assert "eavesdropping" not in heard_by_group
    assert heard["alice"] == []
    wait_for_state(node, "running")

    denied = changes(node)
    oscar = uid(node, "oscar")
    assert denied["change-denied", oscar, True] == acting
    assert denied["change-granted", oscar, True] == 0
    assert not [each for each in denied if each[1] == uid(node, "alice")]  # never reached us

    node.run("systemctl mask --runtime --now polkit")
    check(asked(node, "acting", "oscar")["oscar"], "group, no polkit")
    check(asked(node, "acting", "root")["root"], "root")
    node.run("systemctl unmask --runtime polkit")
    (rule,) = re.findall(r"^```js\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    node.put(rule.encode(), RULE_FILE)
    node.run(f"chmod 644 {RULE_FILE} && systemctl restart polkit && {FIRST_ANSWER}")
    check(asked(node, "acting", "oscar")["oscar"], "group, a rule")
    assert check(asked(node, "all", "root")["root"], "root") == rows

    after = changes(node)
    assert after["change-denied", oscar, True] == 2 * acting
    assert after["change-granted", oscar, True] == acting
    assert after["change-denied", "0", True] == 0
    assert after["change-granted", "0", True] >= 2 * acting
    assert not [each for each in after if not each[2]]


def test_orders_work_as_documented_and_outlive_whoever_takes_them(node: Node) -> None:
    node.put(ct_small(), "/tmp/ct.dcm")
    # The supervisor's log, by systemd's own command.
    level = "systemctl service-log-level medgemma-guard"
    assert node.run(level).text == "info"
    node.run(f"{level} debug")
    assert node.run(level).text == "debug"
    assert node.run("systemctl service-log-target medgemma-guard").text == "journal"
    refused = node.run("systemctl service-log-target medgemma-guard kmsg", check=False)
    assert "journal" in refused.error_text
    node.run("systemctl reload medgemma-guard")
    assert node.run(level).text == "info"  # the configuration's own again

    node.run(f"busctl call {GATEWAY} Pause u 600")
    paused = curl(node, "", "/readyz")
    assert (paused.status, paused.body["ready"]) == (503, False)
    units = ("medgemma-gateway", "medgemma-guard")
    former = {unit: main_pid(node, unit) for unit in units}
    node.run(f"systemctl kill --signal=KILL {' '.join(units)}")
    for unit, pid in former.items():
        wait_for_next_life(node, unit, pid)
    wait_for_state(node, "degraded")
    refused_answer = predict(node, "/tmp/ct.dcm")
    assert (refused_answer.status, refused_answer.body["error"]["type"]) == (503, "paused")
    wait_for(node, "gpuwarden status | grep -q 'front door is paused until'")
    node.run(f"busctl call {GATEWAY} Resume")
    assert predict(node, "/tmp/ct.dcm").status == 200
    wait_for_state(node, "running")

    # A bus that dies takes nobody along: the same processes are on the next one, and take orders.
    former = {unit: main_pid(node, unit) for unit in (*units, "medgemma-worker@0")}
    node.run("systemctl kill --signal=KILL dbus.service")
    wait_for(node, f"busctl call {GATEWAY} Pause u 60")
    node.run(f"busctl call {GATEWAY} Resume")
    wait_for_state(node, "running")
    assert {unit: main_pid(node, unit) for unit in former} == former
    assert predict(node, "/tmp/ct.dcm").status == 200

    # Every order of the documentation is understood and reaches who would do it.
    (orders,) = re.findall(r"^## Orders\n\n```console\n(.*?)^```$", DOCUMENT, re.M | re.S)
    for order in orders.splitlines():
        result = node.run(order, check=False)
        text = result.error_text
        assert not re.search(r"denied|[Uu]nknown|takes|no such (interface|object|method)", text), (
            order,
            text,
        )
