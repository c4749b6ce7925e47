# SPDX-License-Identifier: Apache-2.0
"""The sizes of a model, from its ``config.json``: what a memory plan counts with. Pure.

The family of Gemma 3 (its files leave out what is the library's default), and causal models with
the usual names of keys and a gated MLP. A model that is built otherwise has the same names for
what the cache takes; its weights are then better counted from its files.
"""

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

# What transformers' Gemma3TextConfig and SiglipVisionConfig take where a config.json has nothing.
GEMMA3_TEXT: Dict[str, Any] = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
}
SIGLIP: Dict[str, Any] = {"num_channels": 3, "patch_size": 16, "image_size": 224}
FULL = "full_attention"


class ModelConfigError(ValueError):
    """A config.json doesn't say what a plan needs; the text names the key and what it holds."""


@dataclass(frozen=True)
class VisionShape:
    """A vision tower of the SigLIP kind; sizes in values, ``patches`` of one image."""

    layers: int
    hidden: int
    intermediate: int
    patches: int
    parameters: int


@dataclass(frozen=True)
class ModelShape:
    """A decoder: sizes in values, ``window`` in tokens.

    :ivar full_layers: layers that attend to all tokens; the ``sliding_layers`` keep ``window``.
    :ivar parameters: of all of it, the vision tower too; tied embeddings counted once.
    """

    full_layers: int
    sliding_layers: int
    window: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    parameters: int
    vision: Optional[VisionShape] = None

    @property
    def layers(self) -> int:
        """All of them."""
        return self.full_layers + self.sliding_layers


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The sizes that a config.json tells, or a configuration object's ``to_dict()``.

    :raises ModelConfigError: a key is missing or holds no size.
    """
    nested = config.get("text_config")
    text = dict(nested) if isinstance(nested, Mapping) else dict(config)
    is_gemma = str(text.get("model_type", config.get("model_type", ""))).startswith("gemma3")
    if is_gemma:
        text = {**GEMMA3_TEXT, **{key: value for key, value in text.items() if value is not None}}
    hidden, heads = _size(text, "hidden_size"), _size(text, "num_attention_heads")
    kv_heads = _size(text, "num_key_value_heads", heads)
    head_size = _size(text, "head_dim", hidden // heads)
    intermediate, vocabulary = _size(text, "intermediate_size"), _size(text, "vocab_size")
    layers = _size(text, "num_hidden_layers")
    sliding = _sliding_layers(text, layers)
    vision = _vision(config)
    a_layer = (
        2 * hidden * heads * head_size  # to the queries, and back from the heads
        + 2 * hidden * kv_heads * head_size
        + 3 * hidden * intermediate
        + (4 * hidden + 2 * head_size if is_gemma else 2 * hidden)  # norms
    )
    tables = 1 if text.get("tie_word_embeddings") else 2
    parameters = layers * a_layer + tables * vocabulary * hidden + hidden
    if vision is not None:
        parameters += vision.parameters + vision.hidden * hidden + vision.hidden
    return ModelShape(
        full_layers=layers - sliding,
        sliding_layers=sliding,
        window=_size(text, "sliding_window") if sliding else 0,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=vocabulary,
        parameters=parameters,
        vision=vision,
    )


def _sliding_layers(text: Mapping[str, Any], layers: int) -> int:
    """How many layers keep a window alone."""
    kinds = text.get("layer_types")
    if isinstance(kinds, (list, tuple)) and len(kinds) == layers:
        return sum(kind != FULL for kind in kinds)
    if text.get("sliding_window") is None or text.get("use_sliding_window") is False:
        return 0
    if text.get("sliding_window_pattern") is None:
        return layers
    return layers - layers // _size(text, "sliding_window_pattern")


def _vision(config: Mapping[str, Any]) -> Optional[VisionShape]:
    nested = config.get("vision_config")
    if not isinstance(nested, Mapping):
        return None
    vision = {**SIGLIP, **nested}
    hidden, intermediate = _size(vision, "hidden_size"), _size(vision, "intermediate_size")
    layers, patch = _size(vision, "num_hidden_layers"), _size(vision, "patch_size")
    size = _size(vision, "image_size")
    if size < patch:
        raise ModelConfigError(f"config.json: image_size is {size}, less than one patch of {patch}")
    patches = (size // patch) ** 2
    a_layer = (
        4 * (hidden * hidden + hidden)
        + 2 * hidden * intermediate
        + intermediate
        + hidden
        + 4 * hidden  # two norms with a bias each
    )
    embedding = _size(vision, "num_channels") * patch * patch * hidden + hidden
    parameters = layers * a_layer + embedding + patches * hidden + 2 * hidden
    return VisionShape(layers, hidden, intermediate, patches, parameters)


def _size(config: Mapping[str, Any], key: str, default: Optional[int] = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        found = "is missing" if value is None else f"is {value!r}"
        raise ModelConfigError(f"config.json: {key} {found}, should be a whole number over 0")
    return value
