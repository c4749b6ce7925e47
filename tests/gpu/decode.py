# SPDX-License-Identifier: Apache-2.0
"""Work like a 4B vision-language model's: prefill of images, then token after token.

Random weights of the shapes of Gemma 3 4B in bf16: each token reads all 7.8 GB of them, so the
work is bound by memory as real decoding is. Needs torch and 10 GiB of GPU memory.
"""

from typing import Any

LAYERS, HIDDEN, FEED_FORWARD, QUERY, KEY_VALUE, VOCABULARY = 34, 2560, 10240, 2048, 2048, 262144
PROMPT_TOKENS = 1100  # four images of 256 each, and a question
CONTEXT_TOKENS = 512
BATCHES = (1, 2, 3, 4)


class DecodeLoad:
    """Answers batches of 1 to 4 requests with ``answer_tokens`` each."""

    def __init__(self, answer_tokens: int) -> None:
        import torch  # noqa: PLC0415 - a worker's interpreter has it, the project's has not

        self._torch: Any = torch
        self._answer_tokens = answer_tokens
        torch.manual_seed(1)
        self._layers = [self._layer() for _ in range(LAYERS)]
        self._head = self._weight(HIDDEN, VOCABULARY)
        self._caches = self._weight(max(BATCHES) * 8, CONTEXT_TOKENS, 256)
        self._tokens = {size: self._captured(size) for size in BATCHES}
        for size in BATCHES:
            self.run(size)

    def run(self, batch: int) -> float:
        """One batch; the seconds that the GPU was busy with it."""
        torch = self._torch
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        with torch.no_grad():
            self._through(self._weight(batch * PROMPT_TOKENS, HIDDEN), 0)
            for _ in range(self._answer_tokens):
                self._tokens[batch].replay()
        ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1000

    def _layer(self) -> tuple[Any, ...]:
        shapes = (
            (HIDDEN, QUERY + KEY_VALUE),
            (QUERY, HIDDEN),
            (HIDDEN, 2 * FEED_FORWARD),
            (FEED_FORWARD, HIDDEN),
        )
        return tuple(self._weight(*shape) for shape in shapes)

    def _weight(self, *shape: int) -> Any:
        torch = self._torch
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16) / shape[0] ** 0.5

    def _captured(self, batch: int) -> Any:
        """One token for each request of a batch, as a graph."""
        torch = self._torch
        token = self._weight(batch, HIDDEN)
        side = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.no_grad():
            with torch.cuda.stream(side):
                for _ in range(2):
                    self._through(token, batch) @ self._head
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._through(token, batch) @ self._head
        return graph

    def _through(self, x: Any, decoding: int) -> Any:
        """All layers; with ``decoding`` requests, each also reads its cache."""
        torch = self._torch
        norm, heads = torch.nn.functional.rms_norm, 8
        for qkv, out, up, down in self._layers:
            mixed = (norm(x, (HIDDEN,)) @ qkv)[:, :QUERY]
            if decoding:
                cache = self._caches[: decoding * heads]
                query = mixed.reshape(decoding * heads, 1, 256)
                weights = torch.softmax(query @ cache.transpose(1, 2), -1)
                mixed = (weights @ cache).reshape(decoding, QUERY)
            x = x + mixed @ out
            gate, value = (norm(x, (HIDDEN,)) @ up).chunk(2, -1)
            x = x + (torch.nn.functional.gelu(gate) * value) @ down
        return x
