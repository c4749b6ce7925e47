# SPDX-License-Identifier: Apache-2.0
"""A model of the real one's shape with random weights, saved as a download would be."""

import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.engine.sizes import CARD, TINY, Sizes

SPECIAL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
WEIGHT_DEVIATION = 0.02
QUERY_SCALE = 2.0  # attention that looks at few places: what is seen then depends on who looks


def save_model(folder: Path, sizes: Sizes) -> None:
    """Make and save it, unless the folder is there."""
    if (folder / "processor_config.json").exists():
        return
    import torch  # noqa: PLC0415 - the interpreter of the card has it
    from transformers import Gemma3ForConditionalGeneration, GenerationConfig  # noqa: PLC0415

    torch.manual_seed(1)
    dtype = getattr(torch, sizes.dtype)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(sizes.device):
            model: Any = Gemma3ForConditionalGeneration(_config(sizes))
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    _fill(name, parameter, sizes.embedding_deviation)
    finally:
        torch.set_default_dtype(torch.float32)
    model.generation_config = GenerationConfig(
        bos_token_id=2, eos_token_id=[1, 4], pad_token_id=0, do_sample=False
    )
    model.save_pretrained(folder)
    _save_processor(folder, sizes)


def _fill(name: str, parameter: Any, embedding_deviation: float) -> None:
    """Random values that say many different things: trained ones do, plain noise repeats itself.

    Gemma's own norms multiply by one more than their weight; those of the eyes by their weight. The
    last norm turns the sign of half of all values, so that no token chooses itself again, though
    the vectors that it is read from and chosen by are the same.
    """
    parameter.normal_(0.0, embedding_deviation if "embed_tokens" in name else WEIGHT_DEVIATION)
    if name.endswith("language_model.norm.weight"):
        parameter.copy_(parameter.sign() - 1.0)
    elif name.endswith("q_norm.weight"):
        parameter.add_(QUERY_SCALE - 1.0)
    elif "vision" in name and "norm" in name and name.endswith("weight"):
        parameter.add_(1.0)


def _config(sizes: Sizes) -> Any:
    from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig  # noqa: PLC0415

    text = Gemma3TextConfig(
        vocab_size=sizes.vocabulary, pad_token_id=0, eos_token_id=1, bos_token_id=2, **sizes.text
    )
    config = Gemma3Config(
        text_config=text.to_dict(),
        vision_config=SiglipVisionConfig(**sizes.vision).to_dict(),
        mm_tokens_per_image=sizes.tokens_per_image,
        boi_token_index=5,
        eoi_token_index=6,
        image_token_index=7,
    )
    config.dtype = sizes.dtype
    return config


def _save_processor(folder: Path, sizes: Sizes) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import Gemma3Processor, PreTrainedTokenizerFast  # noqa: PLC0415
    from transformers.models.gemma3.image_processing_pil_gemma3 import (  # noqa: PLC0415
        Gemma3ImageProcessorPil,
    )

    letters = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = [f"Ġw{number}" for number in range(sizes.vocabulary - len(letters))]
    vocabulary = {text: number for number, text in enumerate([*letters, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    side = sizes.vision["image_size"]
    Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(
            size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=whole,
        chat_template=TEMPLATE,
        image_seq_length=sizes.tokens_per_image,
    ).save_pretrained(folder)


if __name__ == "__main__":
    began = time.monotonic()
    save_model(Path(sys.argv[1]), TINY if sys.argv[2:] == ["tiny"] else CARD)
    print(f"saved in {time.monotonic() - began:.1f} s", flush=True)
