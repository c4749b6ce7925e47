# SPDX-License-Identifier: Apache-2.0
"""What several files of tests share: a worker's peer, simulated cards, a place for durable jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.gateway.jobs.service import JobPlace
from tests.integration import simulation
from tests.integration.gateway_node import job_place
from tests.integration.worker_peer import Node, close_node, make_node


@pytest.fixture
def node() -> Iterator[Node]:
    made = make_node()
    yield made
    close_node(made)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated libnvidia-ml.so.1."""
    return simulation.build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def shared_simulation(
    tmp_path_factory: pytest.TempPathFactory, library: Path
) -> Iterator[simulation.Node]:
    directory = tmp_path_factory.mktemp("shared") / "node"
    with simulation.running_node(directory, library, "A100", "A100") as running:
        yield running


@pytest.fixture
def simulated(shared_simulation: simulation.Node) -> Iterator[simulation.Node]:
    """Two A100, mended after the test."""
    yield shared_simulation
    shared_simulation.do("clear")
    shared_simulation.do("reload-driver")
    for caller in shared_simulation.callers:
        caller.end()
    shared_simulation.callers.clear()


@pytest.fixture
def own_simulation(tmp_path: Path, library: Path) -> Iterator[simulation.Node]:
    """Two A100 whose simulator the test may stop and kill."""
    with simulation.running_node(tmp_path / "node", library, "A100", "A100") as running:
        yield running


@pytest.fixture
def other_node() -> Iterator[Node]:
    made = make_node()
    yield made
    close_node(made)


@pytest.fixture
def place(tmp_path: Path) -> JobPlace:
    """Where durable jobs are kept, over several front doors."""
    return job_place(tmp_path / "jobs")


@pytest.fixture
def api_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front door has the key of ``durable_jobs.KEY``."""
    (tmp_path / "gpuwarden-api-key").write_text("open sesame, open sesame\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
