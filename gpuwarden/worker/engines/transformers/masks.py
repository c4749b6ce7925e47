# SPDX-License-Identifier: Apache-2.0
"""Who sees whom, made on the device from positions and lengths: the host waits for nothing.

A mask is added to the scores: 0 where a token is seen, minus infinity where not. Only prompts need
more than a comparison: pictures see all of themselves, and sliding layers nothing far back.
"""

from typing import Optional

import torch


def step_mask(positions: torch.Tensor, places: int, dtype: torch.dtype) -> torch.Tensor:
    """[rows, 1, 1, places] of a step. A row's own token stands at its position, or wrapped.

    It sees all places up to its position: a sliding layer's places are then those of its window.
    """
    place = torch.arange(places, device=positions.device)
    return _added(place[None, None, None] <= positions[:, None, None, None], dtype)


def prompt_mask(
    pictures: Optional[torch.Tensor], tokens: int, window: Optional[int], like: torch.Tensor
) -> torch.Tensor:
    """[group, 1, tokens, tokens] of prompts, or [1, 1, tokens, tokens] of those without pictures.

    What fills a prompt up stands after it, so nothing of the prompt sees it.

    :param pictures: [group, tokens], the number of the picture that a token is of, -1 of a text.
    :param window: of a sliding layer.
    :param like: a tensor of the mask's device and type.
    """
    place = torch.arange(tokens, device=like.device)
    seen = (place[None, :] <= place[:, None])[None]
    if pictures is not None:
        same = pictures[:, :, None] == pictures[:, None, :]
        seen = seen | (same & (pictures >= 0)[:, :, None])
    if window is not None:
        seen = seen & (place[None, :] > place[:, None] - window)[None]
    return _added(seen[:, None], like.dtype)


def picture_numbers(is_image: torch.Tensor) -> torch.Tensor:
    """[group, tokens]: tokens in a row are one picture, numbered from 0; -1 elsewhere."""
    before = torch.nn.functional.pad(is_image, (1, 0))[:, :-1]
    numbers = (is_image & ~before).to(torch.int64).cumsum(1) - 1
    return torch.where(is_image, numbers, torch.full_like(numbers, -1))


def _added(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    zero = torch.zeros((), dtype=dtype, device=seen.device)
    return torch.where(seen, zero, float("-inf")).to(dtype)
