# SPDX-License-Identifier: Apache-2.0
import json
import time
from collections.abc import Callable

import pytest

from tests.node import levels
from tests.node.channel import CommandFailedError, NodeError, NodeLostError
from tests.node.crash import DEVICE, LoggedDisk
from tests.node.vm import Node

ALL_BYTES = bytes(range(256))


@pytest.fixture
def booted_node(shared_booted_node: Node) -> Node:
    """Most of these leave nothing behind; the others have one of their own."""
    return shared_booted_node


@pytest.fixture
def own_node(nodes: Callable[..., Node]) -> Node:
    return nodes(levels.booted_node)


def test_a_command_gives_its_output_and_status_back(booted_node: Node) -> None:
    result = booted_node.run("echo out; echo err >&2; exit 3", check=False)

    assert (result.status, result.text, result.error_text) == (3, "out", "err")


def test_a_command_that_must_succeed_and_does_not_says_what_it_printed(booted_node: Node) -> None:
    with pytest.raises(CommandFailedError, match=r"(?s)ended with 5.*the reason"):
        booted_node.run("echo the reason >&2; exit 5")


def test_binary_input_and_output_pass_unchanged_and_in_bulk(booted_node: Node) -> None:
    content = ALL_BYTES * 40_000

    result = booted_node.run("tee /dev/stderr", stdin=content)

    assert result.stdout == content
    assert result.stderr == content


def test_a_file_comes_out_as_it_went_in(booted_node: Node) -> None:
    content = ALL_BYTES * 40_000

    booted_node.put(content, "/root/file", mode=0o640)

    assert booted_node.get("/root/file") == content
    assert booted_node.run("stat -c '%a %U' /root/file").text == "640 root"
    assert booted_node.run("ls /root").text == "file"
    booted_node.run("rm /root/file")


def test_a_file_that_is_not_there_is_an_error_that_names_it(booted_node: Node) -> None:
    with pytest.raises(NodeError, match="/root/missing"):
        booted_node.get("/root/missing")
    with pytest.raises(NodeError, match="/missing/file"):
        booted_node.put(b"data", "/missing/file")
    with pytest.raises(NodeError, match="/no/such/program"):
        booted_node.run(["/no/such/program"])


def test_after_its_time_a_command_is_killed_with_its_children(booted_node: Node) -> None:
    result = booted_node.run("sleep 1000 | sleep 1000", timeout_seconds=1, check=False)

    assert result.timed_out
    assert booted_node.run("pgrep -x sleep", check=False).text == ""


def test_a_child_left_in_the_background_does_not_hold_the_answer_back(booted_node: Node) -> None:
    result = booted_node.run("sleep 1000 & echo done", timeout_seconds=30)

    assert result.text == "done"
    assert booted_node.run("pgrep -cx sleep").text == "1"
    booted_node.run("pkill -x sleep")


def test_a_user_has_their_own_identity_home_and_no_more_memory_protection_than_others(
    booted_node: Node,
) -> None:
    shown = booted_node.run("id -un; pwd; echo $HOME; cat /proc/self/oom_score_adj", user="alice")

    assert shown.text.split() == ["alice", "/home/alice", "/home/alice", "0"]
    assert booted_node.run("touch /etc/x", user="alice", check=False).status == 1


def test_commands_run_side_by_side_and_events_are_waited_for(booted_node: Node) -> None:
    follower = booted_node.start("journalctl --follow --lines=all --output=cat --identifier=tester")
    booted_node.wait_until("pgrep -x journalctl", r"\d")
    booted_node.run("logger --tag tester 'number 17'")

    found = follower.read_until(r"^number (\d+)$", timeout_seconds=30)
    follower.signal(15)

    assert found[1] == b"17"
    assert follower.wait(30).status == -15


def test_an_event_that_does_not_come_is_an_error_that_shows_what_came(booted_node: Node) -> None:
    process = booted_node.start("echo something else; sleep 1000")

    with pytest.raises(NodeError, match="something else"):
        process.read_until("the event", timeout_seconds=1)
    process.signal(15)


def test_a_terminal_is_one(booted_node: Node) -> None:
    shell = booted_node.start(["/bin/bash"], terminal=(33, 99))
    shell.send(b"stty size; tty\n")
    shell.read_until(r"^33 99\r?$", timeout_seconds=30)
    shell.read_until(r"^/dev/pts/\d+\r?$", timeout_seconds=30)
    shell.send(b"exit 7\n")

    assert shell.wait(30).status == 7


def test_cards_are_on_two_numa_nodes_as_the_kernel_sees_them(booted_node: Node) -> None:
    devices = "/sys/bus/pci/devices"
    shown = booted_node.run(
        f"for card in 0000:41:00.0 0000:81:00.0; do"
        f" cat {devices}/$card/numa_node {devices}/$card/local_cpulist; done"
    )

    assert shown.text.split() == ["0", "0-1", "1", "2-3"]
    assert booted_node.run("cat /sys/devices/system/node/online").text == "0-1"


def test_every_node_starts_clean_with_the_right_time(nodes: Callable[..., Node]) -> None:
    first = nodes(levels.booted_node)
    first.run("touch /root/mark /run/mark; sync")
    second = nodes(levels.booted_node)

    assert second.run("ls /root /run | grep mark", check=False).text == ""
    assert first.run("ls /root").text == "mark"
    before = time.time()
    told = float(second.run("date +%s.%N").text)
    # What setting it took is what it is behind by.
    assert before - 5 < told < time.time() + 5
    assert second.run("systemctl is-system-running").text == "running"


def test_a_power_cut_keeps_what_was_flushed_and_nothing_else(own_node: Node) -> None:
    own_node.run(
        "cd /root; sync; dd if=/dev/zero of=flushed bs=5000 count=1 conv=fsync status=none;"
        "sync /root; dd if=/dev/zero of=plain bs=5000 count=1 status=none; touch /run/mark"
    )
    own_node.power_cut()
    with pytest.raises(NodeError, match="off"):
        own_node.run("true")
    own_node.power_on()

    assert own_node.run("stat -c %s /root/flushed").text == "5000"
    assert own_node.run("stat -c %s /root/plain", check=False).text in ("", "0")
    assert own_node.run("ls /run/mark", check=False).status == 2


def test_a_node_that_ends_under_a_command_is_an_error_at_once(own_node: Node) -> None:
    process = own_node.start("echo here; sleep 1000")
    process.read_until("here", timeout_seconds=30)

    with pytest.raises(NodeLostError):
        # The node may be gone before this one is answered.
        own_node.run("echo o > /proc/sysrq-trigger || true", check=False)
        process.wait(30)


WRITER = """
import json, os
def put(path, generation, flush):
    with open(path + ".new", "w") as file:
        file.write(json.dumps({"generation": generation, "padding": "x" * 6000}))
        if flush:
            file.flush()
            os.fsync(file.fileno())
    os.rename(path + ".new", path)
    if flush:
        directory = os.open("/mnt", os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
for generation in range(1, 13):
    put("/mnt/careful", generation, True)
    put(f"/mnt/careless{generation}", generation, False)
os.sync()
"""


def test_every_crash_point_of_a_disk_can_be_looked_at(own_node: Node) -> None:
    disk = LoggedDisk(own_node)
    own_node.run(f"mount {DEVICE} /mnt")
    own_node.run("python3 -", stdin=WRITER.encode())
    own_node.power_cut()

    generations = []
    short = 0
    for point in disk.crash_points():
        careful = point.read("/careful")
        generations.append(json.loads(careful)["generation"] if careful else 0)
        names = [name for name in point.names() if name.startswith("careless")]
        short += sum(len(point.read(f"/{name}") or b"") < 6000 for name in names)

    assert generations == sorted(generations), "an older state came back"
    assert set(generations) == set(range(13)), "a flushed state is missing"
    assert short > 0, "files without a flush came through every crash: nothing is lost here"


def test_debian_13_boots_too(trixie_node: Node) -> None:
    assert trixie_node.run(". /etc/os-release; echo $VERSION_CODENAME").text == "trixie"
    assert trixie_node.run("systemctl is-system-running").text == "running"
