"""Nodes for the system tests: fresh for each test, their journal attached where one fails."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.node import levels
from tests.node.channel import NodeError
from tests.node.vm import Node

OPEN_NODES = pytest.StashKey[list[Node]]()


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
def node(nodes: Callable[..., Node]) -> Node:
    """Debian 12 with gpuwarden installed and the service running."""
    return nodes(levels.installed_node)


@pytest.fixture
def booted_node(nodes: Callable[..., Node]) -> Node:
    """Debian 12, just booted, without gpuwarden."""
    return nodes(levels.booted_node)


@pytest.fixture
def trixie_node(nodes: Callable[..., Node]) -> Node:
    """Debian 13, just booted, without gpuwarden."""
    return nodes(levels.booted_node, "trixie")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]  # pytest sends the report in
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
