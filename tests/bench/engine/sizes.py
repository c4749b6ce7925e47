# SPDX-License-Identifier: Apache-2.0
"""What is measured: the shapes on a card, and small ones that try the program on a CPU."""

from dataclasses import dataclass
from typing import Any

TEMPLATE_TOKENS = 321  # of the prompt, 256 of them the image (research: the same work)


@dataclass(frozen=True)
class Sizes:
    """One scale of the benchmark.

    :ivar text, vision: of the model's configuration.
    :ivar image_side: pixels of the square images that callers send, 16 bits each.
    :ivar prompt_tokens: of a request, its image among them.
    :ivar answer_tokens: of each answer.
    :ivar alone, together, mixed, naive: how many requests; mixed ones are of mixed sizes.
    :ivar embedding_deviation: of the tokens' vectors: large beside what the layers add, which is
        nearly the same at every place.
    """

    text: dict[str, Any]
    vision: dict[str, Any]
    tokens_per_image: int
    vocabulary: int
    dtype: str
    image_side: int
    prompt_tokens: int
    answer_tokens: int
    slots: int
    cache_tokens: int
    callers: int
    alone: int
    together: int
    mixed: int
    naive: int
    device: str
    embedding_deviation: float = 0.2


# Gemma 3 4B, as MedGemma 4B has it.
CARD = Sizes(
    text={
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 1024,
        "max_position_embeddings": 131072,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        },
    },
    vision={
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
    },
    tokens_per_image=256,
    vocabulary=262208,
    dtype="bfloat16",
    image_side=4096,
    prompt_tokens=TEMPLATE_TOKENS,
    answer_tokens=128,
    slots=32,
    cache_tokens=1024,
    callers=32,
    alone=12,
    together=480,
    mixed=1000,
    naive=8,
    device="cuda",
)

TINY = Sizes(
    text={
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    vision={
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 7,
    },
    tokens_per_image=16,
    vocabulary=2000,
    dtype="float32",
    image_side=256,
    prompt_tokens=100,
    answer_tokens=12,
    slots=4,
    cache_tokens=192,
    callers=4,
    alone=3,
    together=12,
    mixed=24,
    naive=2,
    device="cpu",
)
