# SPDX-License-Identifier: Apache-2.0
"""Hooks on a node: started by systemd, behind the walls of their unit."""

from tests.node.vm import Node
from tests.system.service import wait_for, wait_for_state

CONFIG = "/etc/gpuwarden/conf.d/90-test.toml"
HOOKS = """\
[[thermal.hooks]]
on = ["normal"]
command = ["/bin/sh", "-c", "echo told $GPUWARDEN_GPU $GPUWARDEN_STATE; id -u; ls /dev/nvidia*"]

[[thermal.hooks]]
on = ["normal"]
post = "http://127.0.0.1:7861/api/thermal_mode?mode=normal"
"""


def configure(node: Node) -> None:
    node.run("mkdir -p /etc/gpuwarden/conf.d")
    node.put(HOOKS.encode(), CONFIG)
    node.run("systemctl reload medgemma-guard")
    wait_for_state(node, "running")


def test_hooks_are_started_behind_the_walls_of_their_unit(shared_node: Node) -> None:
    configure(shared_node)
    a_command_is_nobody_in_particular_and_sees_no_card(shared_node)
    a_post_reaches_this_node(shared_node)
    shared_node.run(f"systemctl stop page; rm {CONFIG}; systemctl reload medgemma-guard")


def a_command_is_nobody_in_particular_and_sees_no_card(node: Node) -> None:
    node.run("systemctl start 'medgemma-hook@0-1'", check=False)  # ls finds no card: a failure
    show = "journalctl --no-pager -o cat -u 'medgemma-hook@0-1'"
    wait_for(node, f"{show} | grep -q 'for GPU 1 failed: exit status 2'")
    told = node.run(show).text.splitlines()
    at = told.index("told 1 normal")
    assert 61184 <= int(told[at + 1]) <= 65519  # systemd's range for DynamicUser=
    # Each failure is told once. A node that was just woken may have run it by itself as well.
    event = "journalctl --no-pager -o cat GPUWARDEN_EVENT=hook-failed GPU=1"
    failed = "journalctl --no-pager -o cat _PID=1 UNIT=medgemma-hook@0-1.service"
    told = [line for line in node.run(event).text.splitlines() if "thermal.hooks[0]" in line]
    runs = [line for line in node.run(failed).text.splitlines() if "Failed with result" in line]
    assert len(told) == len(runs) >= 1


def a_post_reaches_this_node(node: Node) -> None:
    # It takes no POST, and says so: what matters is that it was asked.
    node.run("systemd-run --unit=page python3 -m http.server --bind 127.0.0.1 7861")
    wait_for(node, "curl -s -o /dev/null http://127.0.0.1:7861/")
    assert node.run("systemctl start 'medgemma-hook@1-0'", check=False).status != 0
    wait_for(
        node,
        "journalctl --no-pager -o cat GPUWARDEN_EVENT=hook-failed GPU=0 | "
        "grep -qF 'thermal.hooks[1] (http://127.0.0.1:7861/api/thermal_mode) for GPU 0 failed: "
        "it answered 501'",
    )
