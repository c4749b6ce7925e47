# SPDX-License-Identifier: Apache-2.0
"""From a request to tokens and pictures, in a CPU process: all that the card need not do."""

from dataclasses import dataclass
from typing import Any, Dict, List, NoReturn, Optional

from gpuwarden.worker.engine import BadImageError, BadRequestError, Image, Request
from gpuwarden.worker.engines.transformers.options import EngineOptions
from gpuwarden.worker.engines.transformers.pictures import Pictures
from gpuwarden.worker.engines.transformers.processing import Processor, load_processor

ROLES = {"developer": "system"}  # what the models' templates call it
UNABLE = ("min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
NEUTRAL = {"repetition_penalty": 1}  # of those; 0 else
SEED_BITS = 0xFFFFFFFF


@dataclass(frozen=True)
class Prepared:
    """A request as the card wants it.

    :ivar tokens: whole numbers of 32 bits, an array.
    :ivar pictures: [pictures, height, width, channels] of 8 bits, an array, or None.
    :ivar limit: of tokens in the answer.
    :ivar least: tokens before any stop token is chosen.
    """

    tokens: Any
    pictures: Any
    limit: int
    least: int
    ignore_eos: bool
    stop_texts: List[str]
    temperature: float
    top_k: int
    top_p: float
    seed: int

    @property
    def picture_count(self) -> int:
        """How many pictures it shows."""
        return 0 if self.pictures is None else len(self.pictures)


class Prompter:
    """Prepares requests for one model."""

    def __init__(self, options: EngineOptions, max_pixels: int) -> None:
        self._options = options
        self._processor: Processor = load_processor(options)
        self._pictures: Optional[Pictures] = None
        if self._processor.sees:
            self._pictures = Pictures(self._processor, options, max_pixels)

    def prepare(self, request: Request) -> Prepared:
        """Tokens, pictures and terms. Raises BadRequestError, BadImageError."""
        import numpy  # noqa: PLC0415 - only this engine needs it

        messages, images = conversation(request)
        pictures = [self._picture(image, number) for number, image in enumerate(images)]
        tokens = self._tokens(messages, len(images))
        limit, least = self._limits(request.parameters, len(tokens))
        return Prepared(
            tokens=numpy.asarray(tokens, dtype="<i4"),
            pictures=_together(pictures) if pictures else None,
            limit=limit,
            least=least,
            ignore_eos=bool(request.parameters.get("ignore_eos")),
            **self._terms(request.parameters),
        )

    def _picture(self, image: Image, number: int) -> Any:
        if self._pictures is None:
            raise BadRequestError("this model takes no images, it is one of text", "messages")
        try:
            return self._pictures.of(image)
        except BadImageError as error:
            if error.param is None:
                error.param = "image" if number == 0 else f"image {number}"
            raise

    def _tokens(self, messages: List[Dict[str, Any]], images: int) -> List[int]:
        self._refuse_special(messages)
        try:
            text = self._processor.rendered(messages)
        except Exception as error:
            line = str(error).strip().splitlines()[:1]
            raise BadRequestError(
                f"the model's chat template refuses this order of messages: {' '.join(line)}",
                "messages",
            ) from error
        tokens = self._processor.tokens(text)
        found = self._processor.count_pictures(tokens)
        if found != images:
            raise BadRequestError(
                f"the model's chat template places {found} of {images} images", "messages"
            )
        return tokens

    def _refuse_special(self, messages: List[Dict[str, Any]]) -> None:
        """A text may not speak for the template: it could end a turn, or stand for an image."""
        for message in messages:
            for part in message["content"]:
                for special in self._processor.specials if part["type"] == "text" else ():
                    if special in part["text"]:
                        _refuse("messages", f"a text holds {special!r}, which is the model's own")

    def _limits(self, parameters: Dict[str, Any], prompt: int) -> Any:
        cache = self._options.cache_tokens
        room = cache - prompt
        if room < 1:
            _refuse(
                "messages",
                f"the prompt has {prompt} tokens, and prompt and answer together may have {cache}"
                " (option cache_tokens)",
            )
        name = "max_completion_tokens" if "max_completion_tokens" in parameters else "max_tokens"
        asked = parameters.get(name)
        if asked is not None and asked < 1:
            _refuse(name, "an answer has at least 1 token")
        if asked is not None and asked > room:
            _refuse(
                name,
                f"{asked} tokens asked for; after a prompt of {prompt} the cache has room for"
                f" {room} (option cache_tokens)",
            )
        limit = asked or min(self._options.max_new_tokens, room)
        least = parameters.get("min_tokens") or 0
        if least > limit:
            _refuse("min_tokens", f"at least {least} tokens asked for, and at most {limit}")
        return limit, least

    def _terms(self, parameters: Dict[str, Any]) -> Dict[str, Any]:
        for name in UNABLE:
            if parameters.get(name, NEUTRAL.get(name, 0)) != NEUTRAL.get(name, 0):
                _refuse(name, "this engine can't do that: leave the parameter out")
        options = self._options
        asked = parameters.get("temperature")
        seed = parameters.get("seed")
        if seed is None:
            import secrets  # noqa: PLC0415 - for who wants to be surprised

            seed = secrets.randbits(32)
        top_p = parameters.get("top_p", options.top_p)
        return {
            "temperature": float(options.default_temperature if asked is None else asked),
            "top_k": max(0, parameters.get("top_k", options.top_k)),
            "top_p": float(top_p),
            "seed": _folded(seed),
            "stop_texts": [one for one in parameters.get("stop", []) if one],
        }


def conversation(request: Request) -> Any:
    """A request's messages in the library's form, and its images in their order."""
    if not request.messages:
        images = [Image(request.media_type, request.body)] if len(request.body) else []
        parts: List[Dict[str, Any]] = [{"type": "image"} for _ in images]
        parts.append({"type": "text", "text": request.question or ""})
        return [{"role": "user", "content": parts}], images
    messages, images = [], []
    for message in request.messages:
        parts = []
        for part in message["content"]:
            if part["type"] == "image":
                images.append(request.images[part["image"]])
                parts.append({"type": "image"})
            else:
                parts.append({"type": "text", "text": part["text"]})
        role = ROLES.get(message["role"], message["role"])
        messages.append({"role": role, "content": parts})
    return messages, images


def _folded(seed: int) -> int:
    """All 64 bits of a seed count."""
    return (seed ^ (seed >> 32)) & SEED_BITS


def _together(pictures: List[Any]) -> Any:
    """Pictures of one size as one array; grey ones among coloured ones in three channels."""
    import numpy  # noqa: PLC0415 - only this engine needs it

    channels = max(picture.shape[2] for picture in pictures)
    same = [numpy.broadcast_to(one, (*one.shape[:2], channels)) for one in pictures]
    return numpy.ascontiguousarray(numpy.stack(same))


def _refuse(place: Optional[str], message: str) -> NoReturn:
    raise BadRequestError(message, place)
