# SPDX-License-Identifier: Apache-2.0
"""Attention of a step, plugged into the library's interface; prompts go by the library's own.

A step has one query a row and head, and several heads share their keys. The library repeats the
keys for each head, which doubles what a step reads. Here the heads that share keys stand as
queries beside each other, so that the cache is read once, as it lies there.
"""

from typing import Any, Optional, Tuple

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

SDPA, EAGER, SUMS = "gpuwarden_sdpa", "gpuwarden_eager", "gpuwarden_sums"
NAMES = {"sdpa": SDPA, "eager": EAGER}


def name_of(wanted: str, device: str, *, from_int8: bool = False) -> str:
    """The library's name for an option's word: ``auto`` is what is fastest on such a device.

    :param from_int8: whether compiled steps read a cache in int8.
    """
    if wanted != "auto":
        return NAMES[wanted]
    if device != "cuda":
        return SDPA
    return SUMS if from_int8 else EAGER


Attended = Tuple[torch.Tensor, None]


def register() -> None:
    """Make all known to the library."""
    AttentionInterface.register(SDPA, attend_fused)
    AttentionInterface.register(EAGER, attend_by_products)
    AttentionInterface.register(SUMS, attend_by_sums)


def attend_fused(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Optional[torch.Tensor],
    scaling: Optional[float] = None,
    **kwargs: Any,
) -> Attended:
    """By torch's fused attention. [batch, heads, tokens, size] to [batch, tokens, heads, size]."""
    if query.shape[2] > 1 or attention_mask is None:
        attended: Attended = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return attended
    grouped = _grouped(query, key)
    mask = attention_mask.expand(-1, -1, grouped.shape[2], -1)
    found = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=mask, scale=scaling
    )
    return _ungrouped(found, query), None


def attend_by_products(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Optional[torch.Tensor],
    scaling: Optional[float] = None,
    **kwargs: Any,
) -> Attended:
    """By two products and a softmax in float32, which spread over a card also for one row."""
    if query.shape[2] > 1 or attention_mask is None:
        return attend_fused(module, query, key, value, attention_mask, scaling, **kwargs)
    grouped = _grouped(query, key)
    factor = query.shape[3] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(grouped, key.transpose(2, 3)) * factor + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return _ungrouped(torch.matmul(weights, value), query), None


def attend_by_sums(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Optional[torch.Tensor],
    scaling: Optional[float] = None,
    **kwargs: Any,
) -> Attended:
    """As by products, each spelled out: for compiled steps over a cache in int8.

    A library's product reads what it is given from memory, so values of a cache in int8 would be
    written there first, twice as large. The compiler makes of a sum one kernel with what the
    values come from: it reads int8.
    """
    if query.shape[2] > 1 or attention_mask is None:
        return attend_fused(module, query, key, value, attention_mask, scaling, **kwargs)
    grouped = _grouped(query, key)[:, :, :, None].float()
    factor = query.shape[3] ** -0.5 if scaling is None else scaling
    scores = (grouped * key[:, :, None].float()).sum(-1) * factor + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32)[..., None]
    found = (weights * value[:, :, None].float()).sum(-2)
    return _ungrouped(found.to(query.dtype), query), None


def _grouped(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """[batch, heads, 1, size] to [batch, key heads, heads that share them, size]."""
    batch, heads, _, size = query.shape
    return query.reshape(batch, key.shape[1], heads // key.shape[1], size)


def _ungrouped(found: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    batch, heads, _, size = query.shape
    return found.reshape(batch, 1, heads, size)
