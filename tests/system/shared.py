# SPDX-License-Identifier: Apache-2.0
"""Nodes that several tests have, one after the other, for those that leave nothing behind.

Each fresh node pays for itself anew: its memory is read from the snapshot, and all code that it
runs is translated again where it is emulated. That is most of what a short test takes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

from tests.node.vm import Node

Level = Callable[[], AbstractContextManager[Node]]


class SharedNodes:
    """One node of each level, made when it is first asked for, paused while no test has it."""

    def __init__(self) -> None:
        self._nodes: dict[Level, tuple[Node, ExitStack]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for level in list(self._nodes):
            self.discard(level)

    def take(self, level: Level) -> Node:
        """The node of that level, as the test before has left it."""
        if level in self._nodes:
            node, _ = self._nodes[level]
            node.resume()
            return node
        stack = ExitStack()
        node = stack.enter_context(level())
        self._nodes[level] = (node, stack)
        return node

    def give_back(self, level: Level) -> None:
        """The test is done with it and has undone what it did."""
        self._nodes[level][0].pause()

    def discard(self, level: Level) -> None:
        """The next test gets another one."""
        _, stack = self._nodes.pop(level)
        stack.close()
