# SPDX-License-Identifier: Apache-2.0
"""Taking prompts in: in a group, in one of a few shapes, with what the eyes have seen for them."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch

from gpuwarden.worker.engines.transformers.cache import SlotCache, ring_source
from gpuwarden.worker.engines.transformers.decoder import Decoder
from gpuwarden.worker.engines.transformers.eyes import Eyes
from gpuwarden.worker.engines.transformers.graphs import Capture, milliseconds
from gpuwarden.worker.engines.transformers.joining import Durations
from gpuwarden.worker.engines.transformers.loading import Model
from gpuwarden.worker.engines.transformers.masks import picture_numbers, prompt_mask
from gpuwarden.worker.engines.transformers.shapes import bucket

HEAD_ROWS = 8  # products of 2 to 7 rows take longer than those of 8, the head's seven times as long


@dataclass(frozen=True)
class Prompt:
    """One prompt that is to be taken in.

    :ivar row: where it goes.
    :ivar tokens: its tokens' numbers.
    :ivar pictures: [pictures, height, width, channels] of 8 bits; None without.
    :ivar terms: of choosing its tokens, in the order of ``Terms``.
    """

    row: int
    tokens: Sequence[int]
    pictures: Optional[torch.Tensor]
    terms: Tuple[float, int, float, int, int]

    @property
    def picture_count(self) -> int:
        """How many pictures it has."""
        return 0 if self.pictures is None else int(self.pictures.shape[0])


@dataclass(frozen=True)
class Inputs:
    """What a group's runs read, on the device: filled before each.

    :ivar tokens: [group, most tokens].
    :ivar lengths, rows, first: [group]; first: the number of its first picture.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    rows: torch.Tensor
    first: torch.Tensor


class Prefill:
    """Groups of prompts into rows of the cache; their first tokens are chosen, too.

    :param picture_shape: (height, width) of what the eyes are shown.
    """

    def __init__(self, decoder: Decoder, capture: Capture, picture_shape: Tuple[int, int]) -> None:
        self._decoder = decoder
        self._model: Model = decoder.model
        self._cache: SlotCache = decoder.cache
        self._capture = capture
        self._shapes = decoder.shapes
        self._inputs = {group: self._room_for(group) for group in self._shapes.groups}
        self._runs: Dict[Tuple[int, int], Callable[[], None]] = {}
        self.eyes: Optional[Eyes] = None
        if self._model.folder.has_eyes:
            self.eyes = Eyes(self._model, capture, picture_shape)
        # The library gives the head all prompts' last tokens of each: its own of each are enough.
        self._is_running = False
        head = self._model.whole.get_output_embeddings()
        head.register_forward_pre_hook(self._own_last)

    def prepare(self) -> None:
        """Capture all shapes; nobody may be in a row."""
        if self.eyes is not None:
            self.eyes.prepare()
        for group in self._shapes.groups:
            for tokens in reversed(self._shapes.prompts):
                self._run_of(group, tokens)
            self._choose(group, draws=True)
        self._decoder.forget_all()

    def durations(self) -> Durations:
        """How long what is captured takes, but prompts alone; nobody may be in a row."""
        shapes = self._shapes
        measured = Durations(
            step=milliseconds(self._decoder.run_of(shapes.slots[-1], shapes.lengths[-1])),
            look=milliseconds(self.eyes.prepare()) if self.eyes is not None else 0.0,
            prompts={key: milliseconds(run) for key, run in self._runs.items() if key[0] > 1},
        )
        self._decoder.forget_all()
        return measured

    def take_in(self, prompts: Sequence[Prompt]) -> None:
        """Take a group in: its tokens are in ``decoder.tokens`` once the device is there."""
        place = 0
        for one in prompts:
            for picture in one.pictures if one.pictures is not None else ():
                self.look(picture, place)
                place += 1
        self.take_in_seen(prompts)

    def look(self, picture: torch.Tensor, place: int) -> None:
        """Look at a picture that is the group's next, or next but so many."""
        assert self.eyes is not None
        self.eyes.look(picture, place)

    def take_in_seen(self, prompts: Sequence[Prompt]) -> None:
        """Take a group in whose pictures were looked at, in their order."""
        group = bucket(len(prompts), self._shapes.groups)
        tokens = bucket(max(len(one.tokens) for one in prompts), self._shapes.prompts)
        run = self._run_of(group, tokens)
        self._fill(self._inputs[group], prompts, group, tokens)
        run()
        self._choose(group, draws=any(one.terms[0] > 0 for one in prompts))

    # Prompts.

    def _fill(self, inputs: Inputs, prompts: Sequence[Prompt], group: int, tokens: int) -> None:
        """Send what the run reads. A place that nobody needs does what the first one does."""
        members = [*prompts, *[prompts[0]] * (group - len(prompts))]
        first, count = [], 0
        for one in prompts:
            first.append(count)
            count += one.picture_count
        first += [0] * (group - len(prompts))
        filled = [[*one.tokens, *[0] * (tokens - len(one.tokens))] for one in members]
        send = self._decoder.sent
        inputs.tokens[:, :tokens].copy_(send(filled, torch.long), non_blocking=True)
        inputs.lengths.copy_(send([len(one.tokens) for one in members], torch.long))
        rows = send([one.row for one in members], torch.long)
        inputs.rows.copy_(rows)
        inputs.first.copy_(send(first, torch.long))
        terms = self._decoder.terms
        for place, name in enumerate(("temperature", "top_k", "top_p", "seed", "floor")):
            tensor = getattr(terms, name)
            tensor[rows] = send([one.terms[place] for one in members], tensor.dtype)

    def _room_for(self, group: int) -> Inputs:
        device, most = self._model.device, self._shapes.prompts[-1]
        return Inputs(
            torch.zeros((group, most), dtype=torch.long, device=device),
            torch.ones(group, dtype=torch.long, device=device),
            torch.zeros(group, dtype=torch.long, device=device),
            torch.zeros(group, dtype=torch.long, device=device),
        )

    def _run_of(self, group: int, tokens: int) -> Callable[[], None]:
        key = (group, tokens)
        if key not in self._runs:
            inputs = self._inputs[group]
            several = Inputs(inputs.tokens[:, :tokens], inputs.lengths, inputs.rows, inputs.first)

            def run() -> None:
                with torch.no_grad():
                    self._run(several, tokens)

            self._runs[key] = self._capture.of(run)
        return self._runs[key]

    def _choose(self, group: int, *, draws: bool) -> None:
        """The prompts' first tokens, by the logits that are there."""
        decoder, inputs = self._decoder, self._inputs[group]
        terms = decoder.terms.of(inputs.rows)
        tokens = decoder.chosen(group, inputs.lengths, terms, draws=draws)
        decoder.tokens[inputs.rows] = tokens
        decoder.positions[inputs.rows] = inputs.lengths

    def _run(self, inputs: Inputs, tokens: int) -> None:
        decoder, model = self._decoder, self._model
        embedded, pictures = self._embedded(inputs)
        cache = self._cache.for_prefill()
        for layer in cache.layers:
            layer.rows = inputs.rows
            places = layer.keys.shape[2]
            layer.source = None
            if tokens > places:
                layer.source = ring_source(inputs.lengths, tokens, places)

        def mask(window: Optional[int]) -> torch.Tensor:
            return prompt_mask(pictures, tokens, window, embedded)

        last = inputs.lengths - 1
        self._is_running = True
        try:
            whole = model.whole(
                inputs_embeds=embedded,
                attention_mask=decoder.mask_of(mask),
                position_ids=torch.arange(tokens, device=model.device)[None],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=last,
            ).logits
        finally:
            self._is_running = False
        group = inputs.rows.shape[0]
        decoder.logits[:group] = whole[:group, 0]

    def _own_last(self, head: Any, arguments: Tuple[torch.Tensor]) -> Any:
        """[group, group, size], each prompt's places of all last tokens: [group, 1, size].

        On a card some rows more, which nobody reads.
        """
        if not self._is_running:
            return None
        group = torch.arange(arguments[0].shape[0], device=arguments[0].device)
        last = arguments[0][group, group][:, None]
        missing = HEAD_ROWS - last.shape[0]
        if last.device.type == "cuda" and missing > 0:
            last = torch.nn.functional.pad(last, (0, 0, 0, 0, 0, missing))
        return (last,)

    def _embedded(self, inputs: Inputs) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """What the layers get, and which tokens are of which picture."""
        embed = self._model.whole.get_input_embeddings()
        image_token = self._model.image_token
        if image_token is None or self.eyes is None:
            return embed(inputs.tokens), None
        is_image = inputs.tokens == image_token
        embedded = embed(inputs.tokens.masked_fill(is_image, 0))
        numbers = picture_numbers(is_image)
        seen = (is_image.to(torch.int64).cumsum(1) - 1).clamp(min=0)
        features = self.eyes.features
        seen = seen + inputs.first[:, None] * features.shape[1]
        flat = features.flatten(0, 1)
        found = flat[seen.clamp(max=flat.shape[0] - 1)]
        return torch.where(is_image[..., None], found, embedded), numbers
