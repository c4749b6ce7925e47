# SPDX-License-Identifier: Apache-2.0
"""Nodes for the system tests, their journal attached where one fails.

Fresh for each test; or shared with others, for tests that undo whatever they do (shared.py).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.node import levels
from tests.node.channel import NodeError
from tests.node.vm import Node
from tests.system.service import wait_for_state
from tests.system.shared import Level, SharedNodes

OPEN_NODES = pytest.StashKey[list[Node]]()
HAS_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Iterator[Callable[..., Node]]:
    """Opens nodes for one test, as ``nodes(levels.booted_node, "trixie")``."""
    opened: list[Node] = []
    request.node.stash[OPEN_NODES] = opened
    with ExitStack() as stack:

        def open_node(level: Callable[..., Any], *arguments: Any, **keywords: Any) -> Node:
            node: Node = stack.enter_context(level(*arguments, **keywords))
            opened.append(node)
            return node

        yield open_node


@pytest.fixture
def own_node(nodes: Callable[..., Node]) -> Node:
    """Debian 12 with gpuwarden installed and the service running."""
    return nodes(levels.installed_node)


@pytest.fixture
def node(own_node: Node) -> Node:
    """What a file's tests have: a node of their own each, unless the file says otherwise."""
    return own_node


@pytest.fixture
def booted_node(nodes: Callable[..., Node]) -> Node:
    """Debian 12, just booted, without gpuwarden."""
    return nodes(levels.booted_node)


@pytest.fixture
def trixie_node(nodes: Callable[..., Node]) -> Node:
    """Debian 13, just booted, without gpuwarden."""
    return nodes(levels.booted_node, "trixie")


@pytest.fixture(scope="session")
def shared_nodes() -> Iterator[SharedNodes]:
    with SharedNodes() as shared:
        yield shared


@pytest.fixture
def shared_node(request: pytest.FixtureRequest, shared_nodes: SharedNodes) -> Iterator[Node]:
    """Debian 12 with gpuwarden running as installed: at the test's end as at its beginning."""
    with lent(request, shared_nodes, levels.installed_node) as node:
        # Several tests in a row kill the same part: more often than systemd starts one again.
        node.run("systemctl reset-failed")
        yield node
        if HAS_FAILED not in request.node.stash:
            wait_for_state(node, "running")


@pytest.fixture
def shared_booted_node(request: pytest.FixtureRequest, shared_nodes: SharedNodes) -> Iterator[Node]:
    """Debian 12 without gpuwarden: at the test's end as at its beginning."""
    with lent(request, shared_nodes, levels.booted_node) as node:
        yield node


@contextmanager
def lent(request: pytest.FixtureRequest, shared_nodes: SharedNodes, level: Level) -> Iterator[Node]:
    """A shared node for one test; no other test gets it where this one fails."""
    node = shared_nodes.take(level)
    request.node.stash[OPEN_NODES] = [node]
    try:
        yield node
    except BaseException:
        shared_nodes.discard(level)
        raise
    if HAS_FAILED in request.node.stash:
        shared_nodes.discard(level)
    else:
        shared_nodes.give_back(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]  # pytest sends the report in
    if report.failed:
        item.stash[HAS_FAILED] = True
    if report.when == "call" and report.failed and OPEN_NODES in item.stash:
        opened = item.stash[OPEN_NODES]
        for number, node in enumerate(opened):
            report.sections.append((f"journal of node {number}", journal(node)))
    return report  # type: ignore[return-value]  # pytest takes it back


def journal(node: Node) -> str:
    """What the node's services wrote, or why that can't be had."""
    try:
        return node.journal() or "(nothing of medgemma-* or gpuwarden-*)"
    except NodeError as error:
        return f"not to be had: {error}\nconsole:\n{node.console()}"
