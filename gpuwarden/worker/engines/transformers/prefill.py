"""Taking prompts in: pictures through the eyes, then prompts in a group, in one of a few shapes."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch

from gpuwarden.worker.engines.transformers.cache import SlotCache, ring_source
from gpuwarden.worker.engines.transformers.decoder import Decoder
from gpuwarden.worker.engines.transformers.graphs import Capture
from gpuwarden.worker.engines.transformers.loading import Model
from gpuwarden.worker.engines.transformers.masks import picture_numbers, prompt_mask
from gpuwarden.worker.engines.transformers.shapes import bucket

PICTURES_AT_ONCE = 4  # through the eyes; more wait for the next pass
PICTURES_LIMIT = 8  # of one request, as of the front door; and of one group


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
        self._looks: Dict[int, Callable[[], None]] = {}
        # The library gives the head all prompts' last tokens of each: its own of each are enough.
        self._is_running = False
        head = self._model.whole.get_output_embeddings()
        head.register_forward_pre_hook(self._own_last)
        if self._model.folder.has_eyes:
            self._make_room_for_pictures(picture_shape)

    def prepare(self) -> None:
        """Capture all shapes; nobody may be in a row."""
        if self._model.folder.has_eyes:
            for count in self._picture_buckets():
                self._look_of(count)
        for group in self._shapes.groups:
            for tokens in reversed(self._shapes.prompts):
                self._run_of(group, tokens)
            self._choose(group, draws=True)
        self._decoder.forget_all()

    def take_in(self, prompts: Sequence[Prompt]) -> None:
        """Take a group in: its tokens are in ``decoder.tokens`` once the device is there."""
        self._look_at([one.pictures for one in prompts if one.pictures is not None])
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
        decoder.logits[: whole.shape[0]] = whole[:, 0]

    def _own_last(self, head: Any, arguments: Tuple[torch.Tensor]) -> Any:
        """[group, group, size], each prompt's places of all last tokens: [group, 1, size]."""
        if not self._is_running:
            return None
        group = torch.arange(arguments[0].shape[0], device=arguments[0].device)
        return (arguments[0][group, group][:, None],)

    def _embedded(self, inputs: Inputs) -> Tuple[torch.Tensor, Optional[torch.Tensor]]:
        """What the layers get, and which tokens are of which picture."""
        embed = self._model.whole.get_input_embeddings()
        image_token = self._model.image_token
        if image_token is None:
            return embed(inputs.tokens), None
        is_image = inputs.tokens == image_token
        embedded = embed(inputs.tokens.masked_fill(is_image, 0))
        numbers = picture_numbers(is_image)
        seen = (is_image.to(torch.int64).cumsum(1) - 1).clamp(min=0)
        seen = seen + inputs.first[:, None] * self._features.shape[1]
        flat = self._features.flatten(0, 1)
        found = flat[seen.clamp(max=flat.shape[0] - 1)]
        return torch.where(is_image[..., None], found, embedded), numbers

    # Pictures.

    def _make_room_for_pictures(self, shape: Tuple[int, int]) -> None:
        device, config = self._model.device, self._model.whole.config
        height, width = shape
        self._pixels = torch.zeros(
            (PICTURES_AT_ONCE, height, width, 3), dtype=torch.uint8, device=device
        )
        self._seen = torch.zeros(
            (PICTURES_AT_ONCE, config.mm_tokens_per_image, config.text_config.hidden_size),
            dtype=self._model.dtype,
            device=device,
        )
        limit = PICTURES_LIMIT
        self._features = torch.zeros(
            (limit, *self._seen.shape[1:]), dtype=self._model.dtype, device=device
        )

    def set_scale(self, factor: float, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """How a picture's 8 bits become what the eyes want: (value * factor - mean) / deviation."""
        device = self._model.device
        self._factor = factor
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)[:, None, None]
        self._deviation = torch.tensor(deviation, dtype=torch.float32, device=device)[:, None, None]

    def _picture_buckets(self) -> List[int]:
        fixed = len(self._shapes.groups) == 1
        return [PICTURES_AT_ONCE] if fixed else [1, 2, PICTURES_AT_ONCE]

    def _look_at(self, pictures: Sequence[torch.Tensor]) -> None:
        """Have the features of all these pictures ready, in their order."""
        single = [picture for several in pictures for picture in several]
        for start in range(0, len(single), PICTURES_AT_ONCE):
            part = single[start : start + PICTURES_AT_ONCE]
            for place, picture in enumerate(part):
                sent = picture
                if self._model.device.type == "cuda":
                    sent = picture.pin_memory().to(self._model.device, non_blocking=True)
                self._pixels[place].copy_(sent.expand(self._pixels.shape[1:]))
            self._look_of(bucket(len(part), self._picture_buckets()))()
            self._features[start : start + len(part)].copy_(self._seen[: len(part)])

    def _look_of(self, count: int) -> Callable[[], None]:
        if count not in self._looks:

            def look() -> None:
                with torch.no_grad():
                    self._look(count)

            self._looks[count] = self._capture.of(look)
        return self._looks[count]

    def _look(self, count: int) -> None:
        pixels = self._pixels[:count].permute(0, 3, 1, 2).float()
        pixels = (pixels * self._factor - self._mean) / self._deviation
        found: Any = self._model.whole.get_image_features(
            pixels.to(self._model.dtype), return_dict=True
        )
        self._seen[:count] = found.pooler_output.to(self._seen.dtype)
