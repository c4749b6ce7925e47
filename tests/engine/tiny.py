# SPDX-License-Identifier: Apache-2.0
"""Tiny models of random weights with all their files, made on the spot: no weights are shipped."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

WINDOW = 24
IMAGE_TOKENS = 16
IMAGE_SIZE = 56
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
SPECIAL_SCALE = 0.5  # so that answers end now and then, but not at once
# What Gemma's own template does with texts and images, in short.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, and Gemma's special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
            "sot_token": "<start_of_turn>",
            "eot_token": "<end_of_turn>",
        },
        chat_template=TEMPLATE,
    )


def text_config(vocabulary: int, **changes: Any) -> Gemma3TextConfig:
    wanted: dict[str, Any] = {
        "tie_word_embeddings": False,
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention"] * 2
        + ["full_attention"]
        + ["sliding_attention"]
        + ["full_attention"],
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    return Gemma3TextConfig(**{**wanted, **changes})


def _spread(model: Any) -> None:
    """Weights large enough that a random model's choices differ from token to token."""
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.35 if parameter.dim() > 1 else 0.1
            parameter.normal_(0.0, scale)
        head: Any = model.get_output_embeddings()
        head.weight[: len(SPECIAL)] *= SPECIAL_SCALE


def save_gemma3(folder: Path, seed: int = 0) -> Path:
    """A multi-modal Gemma 3 with image processor and tokenizer in a folder."""
    tokenizer = make_tokenizer()
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=7,
    )
    config = Gemma3Config(
        text_config=text_config(len(tokenizer)).to_dict(),
        vision_config=vision.to_dict(),
        mm_tokens_per_image=IMAGE_TOKENS,
        tie_word_embeddings=False,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config)
    _spread(model)
    _save(model, folder, [1, tokenizer.convert_tokens_to_ids("<end_of_turn>")])
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(
            size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
        image_seq_length=IMAGE_TOKENS,
    )
    processor.save_pretrained(folder)
    return folder


def save_text_gemma3(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A Gemma 3 without eyes."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    model = Gemma3ForCausalLM(text_config(len(tokenizer), **changes))
    _spread(model)
    _save(model, folder, [1, tokenizer.convert_tokens_to_ids("<end_of_turn>")])
    tokenizer.save_pretrained(folder)
    return folder


def save_qwen3(folder: Path, seed: int = 0) -> Path:
    """A causal model of another family, all of whose layers see everything."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        tie_word_embeddings=False,
    )
    model = Qwen3ForCausalLM(config)
    _spread(model)
    _save(model, folder, [1])
    tokenizer.save_pretrained(folder)
    return folder


def _save(model: Any, folder: Path, stops: list[int]) -> None:
    model.generation_config = GenerationConfig(
        bos_token_id=2, eos_token_id=stops, pad_token_id=0, do_sample=False
    )
    model.save_pretrained(folder)
