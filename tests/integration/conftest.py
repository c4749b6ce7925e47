from collections.abc import Iterator

import pytest

from tests.integration.worker_peer import Node, close_node, make_node


@pytest.fixture
def node() -> Iterator[Node]:
    made = make_node()
    yield made
    close_node(made)
