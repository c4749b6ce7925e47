# SPDX-License-Identifier: Apache-2.0
"""Steps over all rows: the device's side of decoding. It knows rows and tensors, no requests.

Each row has a position, the place of its newest token, whose keys the next step writes. A step
takes the newest token of each row to the next one. Nothing here waits for the device.
"""

from typing import Any, Callable, Dict, Sequence, Tuple

import torch
from transformers.cache_utils import Cache

from gpuwarden.worker.engines.transformers import sampling
from gpuwarden.worker.engines.transformers.cache import SlotCache, set_places
from gpuwarden.worker.engines.transformers.graphs import Capture
from gpuwarden.worker.engines.transformers.loading import Model
from gpuwarden.worker.engines.transformers.masks import step_mask
from gpuwarden.worker.engines.transformers.sampling import Terms
from gpuwarden.worker.engines.transformers.shapes import Shapes

Step = Tuple[int, int]  # rows, tokens of the cache that are seen


class Decoder:
    """The rows' state on the device, and steps in each shape.

    :ivar tokens: [rows], each row's newest token.
    :ivar positions: [rows], where it stands.
    :ivar logits: [rows, vocabulary], of what was computed last.
    """

    def __init__(self, model: Model, cache: SlotCache, shapes: Shapes, capture: Capture) -> None:
        rows, device = shapes.slots[-1], model.device
        self.model = model
        self.cache = cache
        self.shapes = shapes
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.positions = torch.zeros(rows, dtype=torch.long, device=device)
        self.live = torch.zeros(rows, dtype=torch.bool, device=device)
        self.terms = Terms.make(rows, device)
        self.stops = torch.tensor(model.stops, dtype=torch.long, device=device)
        self.logits = torch.zeros((rows, model.text_config.vocab_size), device=device)
        self._capture = capture
        self._steps: Dict[Step, Callable[[], None]] = {}
        self._choices: Dict[int, Callable[[], None]] = {}

    def prepare(self) -> None:
        """Capture the steps of all shapes; nobody may be in a row."""
        for rows in reversed(self.shapes.slots):
            for length in reversed(self.shapes.lengths):
                self._step_of((rows, length))
            self._choice_of(rows)
            self._choose(rows, draws=True)
        self.forget_all()

    def forget_all(self) -> None:
        """Nobody is in any row."""
        for tensor in (self.tokens, self.positions, self.live):
            tensor.zero_()

    def step(self, rows: int, length: int, *, draws: bool) -> None:
        """The next token of the rows that are live. Nobody beyond the shape may be.

        :param draws: whether any of them draws its tokens.
        """
        self._step_of((rows, length))()
        if draws:
            self._choose(rows, draws=True)
        else:
            self._choice_of(rows)()

    def run_of(self, rows: int, length: int) -> Callable[[], None]:
        """A step of that shape as it is captured, but for choosing its tokens."""
        return self._step_of((rows, length))

    def set_live(self, live: Sequence[bool]) -> None:
        """Which rows go on with the next step."""
        self.live.copy_(self.sent(live, torch.bool), non_blocking=True)

    def exchange(self, one: int, other: int) -> None:
        """Two rows change their places, with all they hold."""
        self.cache.exchange(one, other)
        self.terms.exchange(one, other)
        for tensor in (self.tokens, self.positions):
            kept = tensor[one].clone()
            tensor[one] = tensor[other]
            tensor[other] = kept

    def reset(self, row: int) -> None:
        """Nobody is in a row any more."""
        self.positions[row : row + 1].zero_()

    def sent(self, values: Any, dtype: torch.dtype) -> torch.Tensor:
        """Values on their way to the device; the host doesn't wait."""
        tensor = torch.tensor(values, dtype=dtype)
        if self.model.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.model.device, non_blocking=True)

    def chosen(
        self, count: int, positions: torch.Tensor, terms: Terms, *, draws: bool
    ) -> torch.Tensor:
        """[count], tokens for these positions, by the first logits; ``BROKEN`` where there is none.

        Nobody is told of a token after that, so any other may stand for it in the step.
        """
        logits = sampling.without_stops(self.logits[:count], positions, terms, self.stops)
        tokens = sampling.drawn(logits, positions, terms) if draws else sampling.greedy(logits)
        return sampling.without_broken(tokens, logits)

    def mask_of(self, made: Callable[[Any], torch.Tensor]) -> Any:
        """What the model wants as its mask: one, or one for each kind of its layers.

        :param made: makes it for a sliding window, or for None.
        """
        plans = dict(zip(self.model.kinds, self.model.plans))
        masks = {kind: made(plan.window) for kind, plan in plans.items()}
        layered = getattr(self.model.text_config, "layer_types", None)
        return masks if layered else masks["full_attention"]

    def _step_of(self, shape: Step) -> Callable[[], None]:
        if shape not in self._steps:
            cache = self.cache.for_step(*shape)

            def run() -> None:
                with torch.no_grad():
                    self._run(cache, *shape)

            self._steps[shape] = self._capture.of(run)
        return self._steps[shape]

    def _choice_of(self, rows: int) -> Callable[[], None]:
        if rows not in self._choices:

            def choose() -> None:
                self._choose(rows, draws=False)

            self._choices[rows] = self._capture.of(choose)
        return self._choices[rows]

    def _choose(self, rows: int, *, draws: bool) -> None:
        positions, live = self.positions[:rows], self.live[:rows]
        tokens = self.chosen(rows, positions + 1, self.terms.first(rows), draws=draws)
        self.tokens[:rows] = torch.where(live, tokens, self.tokens[:rows])
        positions += live

    def _run(self, cache: Cache, rows: int, length: int) -> None:
        positions = self.positions[:rows]
        set_places(cache, positions)
        dtype = self.model.dtype

        def mask(window: Any) -> torch.Tensor:
            places = length if window is None else min(length, window)
            return step_mask(positions, places, dtype)

        tokens = self.tokens[:rows, None].clamp(min=0)
        embedded = self.model.whole.get_input_embeddings()(tokens)
        logits = self.model.whole(
            inputs_embeds=embedded,
            attention_mask=self.mask_of(mask),
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.logits[:rows] = logits
