# SPDX-License-Identifier: Apache-2.0
"""The library's tokenizer and image processor of a model, as the CPU processes use them."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

from gpuwarden.worker.engines.transformers.folder import ModelError, ModelFolder
from gpuwarden.worker.engines.transformers.options import EngineOptions

PIXEL_LEVELS = 255


class Processor:
    """What texts and pictures of one model are made with.

    :ivar sees: whether it takes pictures.
    :ivar specials: texts that the tokenizer reads as tokens of the model's own.
    """

    def __init__(self, folder: ModelFolder) -> None:
        from transformers import AutoProcessor, AutoTokenizer  # noqa: PLC0415 - a CPU process

        self.sees = folder.has_eyes
        where: Dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            if self.sees:
                self._whole: Any = AutoProcessor.from_pretrained(
                    folder.path, backend="pil", **where
                )
                self.tokenizer: Any = self._whole.tokenizer
            else:
                self._whole = None
                self.tokenizer = AutoTokenizer.from_pretrained(folder.path, **where)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            text = str(error).strip().splitlines()
            raise ModelError(
                f"{folder.path} has no usable tokenizer or image processor:"
                f" {text[0] if text else type(error).__name__}"
            ) from error
        self._template = getattr(self._whole, "chat_template", None)
        if not (self._template or self.tokenizer.chat_template):
            raise ModelError(
                f"{folder.path} has no chat template (chat_template.jinja): an instruction-tuned"
                " model has one"
            )
        self.specials: Tuple[str, ...] = tuple(self.tokenizer.all_special_tokens)
        if self.sees:
            self._image_token = int(self.tokenizer.image_token_id)
            self._tokens_per_image = int(self._whole.image_seq_length)

    def rendered(self, messages: List[Dict[str, Any]]) -> str:
        """Messages in the model's own form, a place for each picture filled in."""
        texts_only = not self.sees
        if texts_only:
            messages = [
                {**one, "content": "\n".join(part["text"] for part in one["content"])}
                for one in messages
            ]
        text: str = self.tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
        )
        if texts_only:
            return text
        return text.replace(self._whole.boi_token, self._whole.full_image_sequence)

    def tokens(self, text: str) -> List[int]:
        """The numbers of a rendered text's tokens."""
        start = self.tokenizer.bos_token
        whole = not (start and text.startswith(start))
        found: List[int] = self.tokenizer(text, add_special_tokens=whole)["input_ids"]
        return found

    def count_pictures(self, tokens: List[int]) -> int:
        """How many pictures have a place in a prompt."""
        if not self.sees:
            return 0
        return tokens.count(self._image_token) // self._tokens_per_image

    @property
    def picture_size(self) -> Tuple[int, int]:
        """(height, width) that pictures are brought to."""
        size = self._whole.image_processor.size
        return int(size["height"]), int(size["width"])

    @property
    def resample(self) -> int:
        """How: Pillow's number."""
        return int(self._whole.image_processor.resample)

    @property
    def scale(self) -> Tuple[float, List[float], List[float]]:
        """(factor, means, deviations): what makes values of 8 bits what the eyes want."""
        own = self._whole.image_processor
        factor = float(own.rescale_factor) if own.do_rescale else 1.0
        if not own.do_normalize:
            return factor, [0.0] * 3, [1.0] * 3
        return factor, [float(one) for one in own.image_mean], [float(one) for one in own.image_std]

    def decode(self, several: Sequence[Sequence[int]]) -> List[str]:
        """Tokens as texts, without the model's own; in one call, which holds up no other thread."""
        if self.tokenizer.is_fast:
            fast = self.tokenizer.backend_tokenizer
            found: List[str] = fast.decode_batch(several, skip_special_tokens=True)
            return found
        return [self._decode_one(one) for one in several]

    def _decode_one(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def load_processor(options: EngineOptions, folder: Optional[ModelFolder] = None) -> Processor:
    """The processor of the model that the options name. Raises ModelError."""
    from gpuwarden.worker.engines.transformers.finding import find_folder  # noqa: PLC0415

    return Processor(folder or find_folder(options.path))
