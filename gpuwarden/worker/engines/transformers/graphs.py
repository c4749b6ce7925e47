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

    def of(self, function: Callable[[], None]) -> Callable[[], None]:
        """The function, captured where that is possible."""
        if not self.enabled:
            return function
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            function()
        replay: Callable[[], None] = graph.replay
        return replay
