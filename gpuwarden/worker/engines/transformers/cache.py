# SPDX-License-Identifier: Apache-2.0
"""The KV cache: a row for each slot, and layers that write at each row's own position.

Layers plug into the library's Cache. Layers that see everything write token t at place t, those
with a sliding window at t modulo the window. Since a row never holds more than its cache and keys
carry their position, what a step may see is the same for both: places up to its position.
"""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from gpuwarden.worker.engines.transformers.stored import Stack, Stored

Pair = Tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LayerPlan:
    """What the cache holds for one layer of the model.

    :ivar window: places of a sliding layer, None for one that sees everything.
    """

    heads: int
    size: int
    window: Optional[int]


class _Layer(CacheLayerMixin):  # type: ignore[misc] # the library has no types
    """What the library asks of a layer and this cache has no use for.

    :ivar keys, values: what is read in their place when only their sizes are asked for.
    """

    is_compileable = True

    def __init__(self, keys: Stored, values: Stored, window: Optional[int]) -> None:
        super().__init__()
        self.stored = (keys, values)
        self.keys, self.values = keys.tensors[0], values.tensors[0]
        self.is_sliding = window is not None
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """It is there from the start."""

    def get_mask_sizes(self, query_length: int) -> Tuple[int, int]:
        """Masks are made by ``masks``: as many places as a step sees."""
        return int(self.keys.shape[2]), 0

    def get_seq_length(self) -> int:
        """A row has its own length, the layer has none."""
        return 0

    def get_max_length(self) -> int:
        """Places of a row."""
        return int(self.keys.shape[2])


class StepLayer(_Layer):
    """A layer within a step: one new token for each of the first rows.

    :ivar place: [rows, 1], where each row's token goes.
    """

    place: torch.Tensor
    row: torch.Tensor
    head: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> Pair:
        """Write [rows, heads, 1, size]; all that the step may see."""
        where = (self.row, self.head, self.place)
        keys, values = self.stored
        keys.put(where, key_states[:, :, 0])
        values.put(where, value_states[:, :, 0])
        return keys.read(key_states.dtype), values.read(value_states.dtype)


class PrefillLayer(_Layer):
    """A layer while prompts are taken in: they see themselves, nothing that was there before.

    :ivar rows: [group], where each prompt goes.
    :ivar source: [group, window], which token of a prompt longer than the window each place gets.
    """

    rows: torch.Tensor
    source: Optional[torch.Tensor] = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> Pair:
        """Write [group, heads, tokens, size]; what the prompts see of themselves."""
        keys, values = self.stored
        self._write(keys, key_states)
        self._write(values, value_states)
        return key_states, value_states

    def _write(self, into: Stored, states: torch.Tensor) -> None:
        if self.source is not None:
            index = self.source[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
            states = states.gather(2, index)
        into.put_rows(self.rows, states)


class OneLayer:
    """A layer that passes for the whole cache, to the compiled code of one layer.

    The model says the layer's number with each call: code compiled for one would not do for the
    next.
    """

    def __init__(self, layer: _Layer) -> None:
        self._layer = layer

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> Pair:
        """The layer's own."""
        pair: Pair = self._layer.update(key_states, value_states)
        return pair


class SlotCache:
    """The static tensors: keys and values of all rows, layers of one kind in one piece.

    :param length: tokens that a row holds.
    :param dtype: that is computed in; ``in_int8``: what steps read is kept in int8. Prompts see
        themselves as they were computed, so an answer's first token is the same either way.
    """

    def __init__(
        self,
        plans: Sequence[LayerPlan],
        rows: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        in_int8: bool = False,
    ) -> None:
        self.plans = list(plans)
        self.length = length
        self.device = device
        self._stacks: List[Stack] = []
        layers: Dict[int, Tuple[Stored, Stored]] = {}
        for plan in sorted(set(self.plans), key=str):
            members = [index for index, one in enumerate(self.plans) if one == plan]
            shape = (rows, plan.heads, self.places(plan), plan.size)
            # Apart: compiled code may not change two inputs that share their memory.
            keys, values = (
                Stack(len(members), shape, dtype, device, in_int8=in_int8) for _ in range(2)
            )
            self._stacks += [keys, values]
            for place, index in enumerate(members):
                layers[index] = keys.layer(place), values.layer(place)
        self._layers = [layers[index] for index in range(len(self.plans))]
        self.bytes = sum(stack.bytes for stack in self._stacks)

    def places(self, plan: LayerPlan) -> int:
        """Places of a layer's row."""
        return self.length if plan.window is None else min(plan.window, self.length)

    def for_step(self, rows: int, length: int) -> Cache:
        """The first rows with their first tokens, for a step."""
        layers = []
        row = torch.arange(rows, device=self.device)[:, None]
        for plan, (keys, values) in zip(self.plans, self._layers):
            seen = min(length, self.places(plan))
            layer = StepLayer(keys.part(rows, seen), values.part(rows, seen), plan.window)
            layer.row, layer.head = row, torch.arange(plan.heads, device=self.device)[None]
            layers.append(layer)
        return Cache(layers=layers)

    def for_prefill(self) -> Cache:
        """All rows, for prompts."""
        return Cache(
            layers=[
                PrefillLayer(keys, values, plan.window)
                for plan, (keys, values) in zip(self.plans, self._layers)
            ]
        )

    def clear(self, row: int) -> None:
        """Nothing stays of a row that holds what is no number.

        A step reads whole rows, and nothing times no number is none: whoever comes next would
        have it, too.
        """
        for stack in self._stacks:
            stack.clear(row)

    def exchange(self, one: int, other: int) -> None:
        """Two rows change their places, in all layers."""
        for stack in self._stacks:
            stack.exchange(one, other)


def set_places(cache: Cache, positions: torch.Tensor) -> None:
    """Have each layer of a step write where its rows' tokens belong.

    :param positions: [rows], on the device.
    """
    found: Dict[Tuple[bool, int], torch.Tensor] = {}
    for layer in cache.layers:
        kind = (layer.is_sliding, int(layer.keys.shape[2]))
        if kind not in found:
            sliding, places = kind
            # Nobody is in a row whose position is beyond the places of this step.
            place = positions % places if sliding else positions.clamp(max=places - 1)
            found[kind] = place[:, None]
        layer.place = found[kind]


def ring_source(lengths: torch.Tensor, tokens: int, window: int) -> torch.Tensor:
    """Which token of each prompt a place of a sliding layer gets: the last that belongs there.

    :param lengths: [group], of the prompts, which are filled up to ``tokens``.
    """
    place = torch.arange(window, device=lengths.device)[None]
    last = lengths[:, None] - 1
    token = place + window * torch.div(last - place, window, rounding_mode="floor")
    return token.clamp(0, tokens - 1)
