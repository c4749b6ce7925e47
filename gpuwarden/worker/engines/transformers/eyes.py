# SPDX-License-Identifier: Apache-2.0
"""Pictures through the model's eyes, one at a time: what they see waits for its prompt.

One at a time since that is as fast: a picture of 4096 patches fills a card by itself. So it can be
shown between any two steps, and what is seen hangs on the picture alone.
"""

from typing import Any, Callable, Optional, Sequence, Tuple

import torch

from gpuwarden.worker.engines.transformers.graphs import Capture
from gpuwarden.worker.engines.transformers.loading import Model

PICTURES_LIMIT = 8  # of one request, as of the front door; and of one group


class Eyes:
    """What has been seen, by place.

    :param picture_shape: (height, width) of what the eyes are shown.
    :ivar features: [places, tokens of a picture, hidden size].
    """

    def __init__(self, model: Model, capture: Capture, picture_shape: Tuple[int, int]) -> None:
        device, config = model.device, model.whole.config
        self._model = model
        self._capture = capture
        self._pixels = torch.zeros((1, *picture_shape, 3), dtype=torch.uint8, device=device)
        size = (config.mm_tokens_per_image, config.text_config.hidden_size)
        self._seen = torch.zeros((1, *size), dtype=model.dtype, device=device)
        self.features = torch.zeros((PICTURES_LIMIT, *size), dtype=model.dtype, device=device)
        self._look: Optional[Callable[[], None]] = None

    def set_scale(self, factor: float, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """How a picture's 8 bits become what the eyes want: (value * factor - mean) / deviation."""
        device = self._model.device
        self._factor = factor
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)[:, None, None]
        self._deviation = torch.tensor(deviation, dtype=torch.float32, device=device)[:, None, None]

    def prepare(self) -> Callable[[], None]:
        """The run of one picture, captured."""
        if self._look is None:
            self._look = self._capture.of(self._run)
        return self._look

    def look(self, picture: torch.Tensor, place: int) -> None:
        """Look at a picture, [height, width, channels]; what is seen of it goes to a place."""
        sent = picture
        if self._model.device.type == "cuda":
            sent = picture.pin_memory().to(self._model.device, non_blocking=True)
        self._pixels[0].copy_(sent.expand(self._pixels.shape[1:]))
        self.prepare()()
        self.features[place].copy_(self._seen[0])

    def _run(self) -> None:
        with torch.no_grad():
            pixels = self._pixels.permute(0, 3, 1, 2).float()
            pixels = (pixels * self._factor - self._mean) / self._deviation
            found: Any = self._model.whole.get_image_features(
                pixels.to(self._model.dtype), return_dict=True
            )
            self._seen.copy_(found.pooler_output.to(self._seen.dtype))
