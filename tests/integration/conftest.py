"""The simulated node that several files of tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.simulation import Node, build_library, running_node


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated libnvidia-ml.so.1."""
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("shared") / "node", library, "A100", "A100") as node:
        yield node


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """Two A100, mended after the test."""
    yield shared_node
    shared_node.do("clear")
    shared_node.do("reload-driver")
    for caller in shared_node.callers:
        caller.end()
    shared_node.callers.clear()


@pytest.fixture
def own_node(tmp_path: Path, library: Path) -> Iterator[Node]:
    """Two A100 whose simulator the test may stop and kill."""
    with running_node(tmp_path / "node", library, "A100", "A100") as node:
        yield node
