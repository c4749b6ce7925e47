# SPDX-License-Identifier: Apache-2.0
"""One screen and the journal tell an operator how the service is, with the supervisor dead, too."""

import json

from gpuwarden.cli.status_screen import SCREEN_LINES
from gpuwarden.systemd.events import Event
from tests.node.vm import Node
from tests.system.service import status, wait_for_state

NO_RESTART = "/run/systemd/system/medgemma-guard.service.d/99-stay-dead.conf"
DIE = f"""
mkdir -p $(dirname {NO_RESTART}); printf '[Service]\\nRestart=no\\n' > {NO_RESTART}
systemctl daemon-reload; systemctl kill --signal=KILL medgemma-guard
until [ $(systemctl show -P ActiveState medgemma-guard) = failed ]; do sleep 0.2; done
"""
SCREEN_SECONDS = 60.0
COME_BACK = f"rm {NO_RESTART}; systemctl daemon-reload; systemctl restart medgemma-guard"


def screen(node: Node) -> tuple[int, list[str]]:
    """Exit status and lines of ``gpuwarden status``."""
    done = node.run("gpuwarden status", check=False)
    return done.status, done.text.splitlines()


def test_the_operator_sees_how_it_is_and_reads_why(node: Node) -> None:
    code, lines = screen(node)
    assert (code, lines[0]) == (0, "gpuwarden 0.1.0 is RUNNING with SIMULATED cards"), lines
    assert len(lines) < SCREEN_LINES
    assert max(map(len, lines[:17])) <= 80  # events have the length that they have
    told = status(node)["events"]
    assert "worker-state" in [each["event"] for each in told]
    assert lines[-1].endswith(told[-1]["message"])

    the_journal_explains(node)
    the_live_screen_orders(node)

    node.run(DIE)
    code, lines = screen(node)
    text = "\n".join(lines)
    assert (code, lines[0]) == (3, "gpuwarden 0.1.0 is NOT RUNNING with SIMULATED cards"), lines
    assert "because: medgemma-guard.service is not running" in text
    assert "Workers (by systemd, now): 2 of 2 ready" in text
    assert "Cards (by their thermal guards, " in text
    assert "Requests (by the gateway, " in text
    assert "Last events (LAST KNOWN, written " in text
    assert [line.split()[1] for line in lines if line.startswith("    ")][:2] == ["ready", "ready"]

    node.run(COME_BACK)
    wait_for_state(node, "running")
    assert status(node)["events"][: len(told)] != []
    messages = [each["message"] for each in status(node)["events"]]
    assert told[-1]["message"] in messages, "the events of the former guard are lost"


def the_journal_explains(node: Node) -> None:
    listed = node.run("journalctl --list-catalog").text
    assert {event.message_id for event in Event} <= {
        line.split()[0] for line in listed.splitlines()
    }
    told = node.run("journalctl --no-pager --catalog -u medgemma-guard").text
    assert "Subject: Worker 0 is ready" in told
    assert "Worker 0 on GPU 0 went from" in told
    assert "The service is running" in told
    logs = node.run("gpuwarden logs --worker 0 --lines 100").text
    assert "worker 0: " in logs
    assert "Started medgemma-worker@0.service" in logs
    (line, *_) = node.run("gpuwarden logs --event worker-state --lines 1 --json").text.splitlines()
    assert json.loads(line)["GPUWARDEN_EVENT"] == "worker-state"


def the_live_screen_orders(node: Node) -> None:
    """``gpuwarden top`` on a terminal of the size that SSH has had since ever."""
    terminal = {"TERM": "xterm-256color"}
    top = node.start(["gpuwarden", "top"], environment=terminal, terminal=(24, 80))
    top.read_until("q quit", SCREEN_SECONDS)
    top.send(b"o")
    top.read_until(r"Cool GPU 0 for", SCREEN_SECONDS)
    top.send(b"a")
    top.read_until("GPU 0 is cooled as at alert", SCREEN_SECONDS)
    top.read_until("ALERT", SCREEN_SECONDS)
    top.resize(10, 40)
    top.read_until("needs 64 x 16", SCREEN_SECONDS)
    top.resize(24, 80)
    top.read_until("q quit", SCREEN_SECONDS)
    top.send(b"q")
    assert top.wait(SCREEN_SECONDS).status == 0
    node.run("gpuwarden thermal clear-override 0")
