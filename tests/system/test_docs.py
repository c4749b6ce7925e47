# SPDX-License-Identifier: Apache-2.0
"""Every ``sh`` block of the documentation runs as it is written, in order, as root."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node import levels
from tests.node.demo import ct_small
from tests.node.vm import Node
from tests.system.service import wait_for, wait_for_state

DOCS = Path(__file__).parents[2] / "docs"
# The status command's own answer while the service is still starting.
STARTING = 1


def blocks(name: str, language: str = "sh") -> list[str]:
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return block.findall((DOCS / name).read_text())


def run_block(node: Node, block: str) -> None:
    """Run a block; again if the service was not well then.

    An emulated node on a busy machine stalls for seconds, and states go stale meanwhile.
    """
    allowed = {0, STARTING} if block.rstrip().endswith("gpuwarden status") else {0}
    for _ in range(3):
        result = node.run(
            ["bash", "-euo", "pipefail", "-c", block], check=False, timeout_seconds=180
        )
        if result.status in allowed:
            return
        wait_for_state(node, "running")
    raise AssertionError(f"{block}\n{result.text}\n{result.error_text}")


def test_readme_and_install_as_documented(nodes: Callable[..., Node]) -> None:
    node = nodes(levels.booted_node)
    for deb in levels.debs():
        node.put(deb, f"/root/{deb.name}")
    node.put(ct_small(), "/root/chest.dcm")
    install, *rest = commands((DOCS.parent / "README.md").read_text())
    assert len(rest) <= 5
    run_block(node, f"cd /root; {install}")
    assert node.run("systemctl list-units --plain --no-legend 'medgemma-*.service'").text == ""
    for command in rest[:-1]:
        run_block(node, f"cd /root; {command}")
    answer = node.run(["bash", "-c", f"cd /root; {rest[-1]}"], timeout_seconds=180).text
    assert json.loads(answer)["answer"]["width"] == 128

    same, configure, start, group, remove = blocks("install.md")
    assert same.strip() == install
    wait_for_state(node, "running", timeout_seconds=180)
    for block in (configure, start, group):
        run_block(node, block)
    wait_for_state(node, "running", timeout_seconds=180)
    wait_for(node, "runuser -u oscar -- gpuwarden status")
    run_block(node, remove)
    assert node.run("ls -d /usr/bin/gpuwarden /etc/gpuwarden", check=False).text == ""


def commands(text: str) -> list[str]:
    """The lines of a document's only block of commands, without their remarks."""
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line.partition("  #")[0] for line in block.splitlines()]


INTEGRATION = (
    *("integrate.md", "integrate-bus.md", "dbus.md"),
    *("jobs.md", "vllm.md", "prometheus.md"),
)
OPERATION = ("first-hour.md", "troubleshoot.md", "operate.md", "placement.md", "safety.md")


def test_the_integration_as_documented(node: Node) -> None:
    run_all(node, INTEGRATION, at_least=10)


@pytest.mark.long("tests/integration/cli")
def test_the_operation_as_documented(node: Node) -> None:
    run_all(node, OPERATION, at_least=30)


def run_all(node: Node, pages: tuple[str, ...], *, at_least: int) -> None:
    node.put(ct_small(), "/tmp/ct.dcm")
    documented = [block for page in pages for block in blocks(page)]
    assert len(documented) >= at_least
    for block in documented:
        run_block(node, block)


def test_the_test_node_is_used_as_documented() -> None:
    (program,) = blocks("develop.md", "python")
    exec(program, {})
