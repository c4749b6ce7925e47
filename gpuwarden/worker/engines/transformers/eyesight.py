"""The attention of a model's eyes: which of torch's kernels, with heads of which size.

Eyes look at 4096 patches in heads of 72 values, a size that no kernel is made for. Which of them
does best with it, as it is or filled up with zeros, differs by the card and by torch's version. So
it is tried at load. All of them compute the same sums, rounded in another order.
"""

from dataclasses import dataclass
from typing import Any, Optional, Tuple

import torch
from transformers import AttentionInterface

KERNELS = ("cudnn", "flash")


@dataclass(frozen=True)
class Way:
    """One of them.

    :ivar kernel: one of ``KERNELS``.
    :ivar size: of a head, filled up with zeros to it; 0 as it is.
    """

    kernel: str
    size: int = 0

    @property
    def name(self) -> str:
        """What the library knows it by."""
        return f"gpuwarden_eyes_{self.kernel}_{self.size}"

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Optional[torch.Tensor],
        scaling: Optional[float] = None,
        **kwargs: Any,
    ) -> Tuple[torch.Tensor, None]:
        """[batch, heads, patches, size] to [batch, patches, heads, size]; nothing is masked."""
        return self.attend(query, key, value, scaling).transpose(1, 2), None

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: Optional[float] = None,
    ) -> torch.Tensor:
        """[batch, heads, patches, size], all of them."""
        size = query.shape[3]
        scale = size**-0.5 if scaling is None else scaling
        missing = self.size - size
        if missing > 0:
            query, key, value = (
                torch.nn.functional.pad(one, (0, missing)) for one in (query, key, value)
            )
        operations = torch.ops.aten
        if self.kernel == "cudnn":
            found = operations._scaled_dot_product_cudnn_attention(
                query, key, value, None, False, scale=scale
            )[0]
        else:
            found = operations._scaled_dot_product_flash_attention(query, key, value, scale=scale)[
                0
            ]
        return found[..., :size] if missing > 0 else found


# In the order in which they are tried.
WAYS = (Way("cudnn"), Way("flash"), Way("cudnn", 80), Way("cudnn", 128), Way("flash", 96))


def register() -> None:
    """Make all known to the library."""
    for way in WAYS:
        AttentionInterface.register(way.name, way)


def show_by(whole: Any, name: str) -> None:
    """Have a model's eyes attend by a way, or by the library's name of another."""
    for module in whole.modules():
        if type(module).__name__ == "SiglipAttention":
            module.config._attn_implementation = name
