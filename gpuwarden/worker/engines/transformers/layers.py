# SPDX-License-Identifier: Apache-2.0
"""Layers compiled one by one: all of a kind share their code, so a model compiles in seconds.

Compiling the model as a whole would unroll its layers into one program, minutes for each shape.
"""

from functools import partial
from typing import Any, Callable, Optional

import torch
from transformers.cache_utils import Cache

from gpuwarden.worker.engines.transformers.cache import OneLayer, PrefillLayer

EYE_LAYER = "SiglipEncoderLayer"  # of the Gemma 3 family
RECOMPILES = 256  # kinds of layer times shapes; torch gives up after 8 by itself

Run = Callable[..., Any]


def compile_layers(layers: Any, *, prompts: bool = True) -> None:
    """Have each layer of a model run compiled from now on, for steps and for ``prompts``."""
    torch._dynamo.config.recompile_limit = RECOMPILES
    torch._dynamo.config.accumulated_recompile_limit = 4 * RECOMPILES
    forward = type(layers[0]).forward

    def step_layer(layer: Any, hidden: torch.Tensor, **arguments: Any) -> Any:
        return forward(layer, hidden, **arguments)

    def prompt_layer(layer: Any, hidden: torch.Tensor, **arguments: Any) -> Any:
        return forward(layer, hidden, **arguments)

    run_step = torch.compile(step_layer, fullgraph=True, dynamic=False)
    run_prompt: Run = prompt_layer
    if prompts:
        run_prompt = torch.compile(prompt_layer, fullgraph=True, dynamic=True)
    for number, layer in enumerate(layers):
        layer.forward = _CompiledLayer(layer, number, run_step, run_prompt)


def compile_eyes(whole: Any) -> None:
    """Have the layers of a model's eyes run compiled from now on: one program for each count.

    Their products are the libraries' as before; sums, norms and activations between them are fused.
    """
    layers = [one for one in whole.modules() if type(one).__name__ == EYE_LAYER]
    if not layers:
        return
    forward = type(layers[0]).forward

    def eye_layer(layer: Any, hidden: torch.Tensor, *others: Any, **arguments: Any) -> Any:
        return forward(layer, hidden, *others, **arguments)

    run = torch.compile(eye_layer, fullgraph=True, dynamic=False)
    for layer in layers:
        layer.forward = partial(run, layer)


class _CompiledLayer:
    """A layer's ``forward``, led to the compiled code with its own part of the cache."""

    def __init__(self, layer: Any, number: int, run_step: Run, run_prompt: Run) -> None:
        self._layer = layer
        self._number = number
        self._run_step = run_step
        self._run_prompt = run_prompt

    def __call__(
        self, hidden: torch.Tensor, past_key_values: Optional[Cache] = None, **arguments: Any
    ) -> Any:
        assert past_key_values is not None
        own = past_key_values.layers[self._number]
        run = self._run_prompt if isinstance(own, PrefillLayer) else self._run_step
        return run(self._layer, hidden, past_key_values=OneLayer(own), **arguments)
