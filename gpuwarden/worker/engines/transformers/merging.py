# SPDX-License-Identifier: Apache-2.0
"""Weights that read the same input, merged at load: one product in place of two or three.

The library's modules stay as they are, but for their ``Linear``s: the first of a family makes the
product for all of them, and each takes its part of it.
"""

from typing import Any, Iterator, List, Optional, Sequence, Tuple

import torch
from torch.nn import functional

from gpuwarden.worker.engines.transformers.onerow import Shape, one_row

# What reads the same input, in the order in which the library's modules ask.
FAMILIES = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class Product(torch.nn.Module):  # type: ignore[misc] # the library has no types
    """A weight without a bias, [outputs, inputs].

    :ivar shape: of the kernel for one row; None leaves it to torch.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.shape: Optional[Shape] = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[..., inputs] to [..., outputs]."""
        shape = self.shape
        if shape is not None and values.numel() == values.shape[-1]:
            found: torch.Tensor = one_row(
                values, self.weight, shape.outputs, shape.piece, shape.warps
            )
            return found
        return functional.linear(values, self.weight)


class _Shared:
    """What a family's product gave, from the first who asks to the last."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.values: Optional[torch.Tensor] = None
        self.made: Optional[torch.Tensor] = None


class Part(torch.nn.Module):  # type: ignore[misc] # the library has no types
    """One of a family: a part of its product's outputs."""

    def __init__(self, shared: _Shared, start: int, size: int, *, first: bool, last: bool) -> None:
        super().__init__()
        self._shared = shared
        self._start, self._size = start, size
        self._first, self._last = first, last

    @property
    def weight(self) -> torch.Tensor:
        """Its own part of the weight, where it lies."""
        return self._shared.product.weight[self._start : self._start + self._size]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[..., inputs] to [..., its outputs]."""
        shared = self._shared
        if self._first:
            shared.values, shared.made = values, shared.product(values)
        made = shared.made
        if made is None or shared.values is not values:  # asked in another order
            return functional.linear(values, self.weight)
        if self._last:
            shared.values = shared.made = None
        return made[..., self._start : self._start + self._size]


def merge(layers: Sequence[Any]) -> List[Product]:
    """Merge what can be merged in a model's layers, and make all their weights ``Product``s."""
    products: List[Product] = []
    for layer in layers:
        for module in list(layer.modules()):
            for names in FAMILIES:
                members = [getattr(module, name, None) for name in names]
                if all(_is_plain(one) for one in members):
                    products.append(_merge(module, names, members))
        for module, name, linear in list(_plain_children(layer)):
            product = Product(linear.weight.detach())
            setattr(module, name, product)
            products.append(product)
    return products


def _merge(module: Any, names: Sequence[str], members: Sequence[Any]) -> Product:
    sizes = [int(one.weight.shape[0]) for one in members]
    product = Product(torch.cat([one.weight.detach() for one in members]))
    shared = _Shared(product)
    module.add_module("_merged", product)  # the model's own: what moves it moves this
    start = 0
    for place, (name, size) in enumerate(zip(names, sizes)):
        last = place == len(names) - 1
        setattr(module, name, Part(shared, start, size, first=place == 0, last=last))
        start += size
    return product


def _is_plain(one: Any) -> bool:
    return type(one) is torch.nn.Linear and one.bias is None


def _plain_children(layer: Any) -> Iterator[Tuple[Any, str, Any]]:
    for module in layer.modules():
        for name, child in module.named_children():
            if _is_plain(child):
                yield module, name, child
