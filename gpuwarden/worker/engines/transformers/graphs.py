# SPDX-License-Identifier: Apache-2.0
"""A step or a group of prompts in one shape: captured once and replayed, or run as it is."""

from typing import Any, Callable, Optional

import torch

WARM_UPS = 2  # before a capture: libraries choose and load their kernels, code is compiled


class Capture:
    """Captures functions whose tensors never move, all in one pool of memory.

    They are replayed one after the other, so what they need in between may lie at one place. What a
    function leaves for others must be tensors from outside.
    """

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self.enabled = enabled and device.type == "cuda"
        self._pool: Optional[Any] = torch.cuda.graph_pool_handle() if self.enabled else None
        # One for all: what libraries keep for a stream, they keep once.
        self._side: Optional[Any] = torch.cuda.Stream(device) if self.enabled else None

    def of(self, function: Callable[[], None]) -> Callable[[], None]:
        """The function, captured where that is possible."""
        if self._side is None:
            return function
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(self._side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on: they have no part in this.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"
        ):
            function()
        return Captured(graph, function)


class Captured:
    """A captured function. It stays, for it may hold tensors that the graph reads by address."""

    def __init__(self, graph: Any, function: Callable[[], None]) -> None:
        self._graph = graph
        self._function = function

    def __call__(self) -> None:
        """Do it again."""
        self._graph.replay()


def milliseconds(run: Callable[[], None]) -> float:
    """What a run takes on the card, once it is there."""
    run()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
