# SPDX-License-Identifier: Apache-2.0
"""From a folder to a model on its device, with the library's own classes and nothing fetched."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Dict, List, Optional

import torch
import transformers

from gpuwarden.worker.engines.transformers import attention
from gpuwarden.worker.engines.transformers.cache import LayerPlan
from gpuwarden.worker.engines.transformers.choosing import choose_shapes
from gpuwarden.worker.engines.transformers.finding import find_folder
from gpuwarden.worker.engines.transformers.folder import ModelError, ModelFolder
from gpuwarden.worker.engines.transformers.merging import merge
from gpuwarden.worker.engines.transformers.options import EngineOptions

AMPERE = (8, 0)  # the first cards that compute in bfloat16
# Kinds of model with eyes that this engine knows how to show a picture to.
SEEING = {"gemma3": "Gemma3ForConditionalGeneration"}
# Layers that keep nothing but keys and values of what they have seen.
LAYER_KINDS = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class Model:
    """A model that is loaded.

    :ivar whole: the library's object with ``forward``.
    :ivar layers: the text model's layers.
    :ivar plans: what the cache holds for each of them.
    :ivar kinds: the layers' kinds, as the library names its masks.
    :ivar stops: tokens that end an answer.
    """

    folder: ModelFolder
    whole: Any
    device: torch.device
    dtype: torch.dtype
    layers: List[Any]
    plans: List[LayerPlan]
    kinds: List[str]
    stops: List[int]

    @property
    def text_config(self) -> Any:
        """The text model's configuration."""
        return self.whole.config.get_text_config()

    @property
    def image_token(self) -> Optional[int]:
        """The token that stands for a piece of a picture; None without eyes."""
        return int(self.whole.config.image_token_id) if self.folder.has_eyes else None


def load_model(options: EngineOptions) -> Model:
    """The model, on its device, ready for ``forward``. Raises ModelError."""
    folder = find_folder(options.path)
    device = choose_device(options.device)
    dtype = choose_dtype(options.torch_dtype, folder, device)
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = options.tf32  # of convolutions: it is on by default
    attention.register()
    transformers.utils.logging.disable_progress_bar()
    from_int8 = options.cache_in_int8 and options.compile != "none"
    attends = attention.name_of(options.attn_implementation, device.type, from_int8=from_int8)
    whole = _load(folder, device, dtype, attends)
    layers = _layers_of(whole)
    if options.merge_weights:
        _merge(layers, options, device)
    plans, kinds = _plans_of(whole.config.get_text_config(), folder, len(layers))
    return Model(folder, whole, device, dtype, layers, plans, kinds, _stops_of(whole))


def choose_device(wanted: str) -> torch.device:
    """The card, where there is one. Raises ModelError."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ModelError(
            "torch sees no card (option device is cuda): see gpuwarden doctor, or leave it out"
        )
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def choose_dtype(wanted: str, folder: ModelFolder, device: torch.device) -> torch.dtype:
    """The type of weights and cache. Raises ModelError for what would give wrong answers."""
    name = wanted if wanted != "auto" else folder.dtype or "bfloat16"
    if name not in ("bfloat16", "float32", "float16"):
        raise ModelError(
            f"the weights in {folder.path} are of type {name}: this engine runs bfloat16, float32"
            " and float16; set option torch_dtype"
        )
    if name == "float16" and folder.kind.startswith("gemma"):
        raise ModelError(
            f"float16 cannot hold what a {folder.kind} model computes: it overflows and answers"
            " nonsense; set option torch_dtype to bfloat16"
        )
    if name == "bfloat16" and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < AMPERE:
            raise ModelError(
                f"{torch.cuda.get_device_name(device)} (compute capability {capability[0]}."
                f"{capability[1]}) does not compute in bfloat16: use a card from Ampere (8.0) on,"
                " or set option torch_dtype to float32, which takes twice the memory"
            )
    found: torch.dtype = getattr(torch, name)
    return found


def _load(folder: ModelFolder, device: torch.device, dtype: torch.dtype, attends: str) -> Any:
    if folder.has_eyes and folder.kind not in SEEING:
        known = ", ".join(sorted(SEEING))
        raise ModelError(
            f"{folder.path} holds a {folder.kind} model, which takes images; of that sort this"
            f" engine runs {known}, and causal models of text alone"
        )
    name = SEEING[folder.kind] if folder.has_eyes else "AutoModelForCausalLM"
    try:
        whole, found = getattr(transformers, name).from_pretrained(
            folder.path,
            local_files_only=True,
            trust_remote_code=False,
            dtype=dtype,
            **_straight_to(device),
            attn_implementation=attends,
            output_loading_info=True,
        )
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever is wrong with a folder's files, each library says its own
        text = str(error).strip().splitlines()
        raise ModelError(
            f"{folder.path} ({folder.kind or 'unknown kind'}) cannot be loaded by transformers"
            f" {transformers.__version__}: {text[0] if text else type(error).__name__}"
        ) from error
    _check_whole(folder, sorted(found["missing_keys"]))
    return whole.to(device).eval().requires_grad_(False)


def _check_whole(folder: ModelFolder, missing: List[str]) -> None:
    """The library fills what a folder lacks with random numbers, and says so in its log alone."""
    if missing:
        raise ModelError(
            f"the weights in {folder.path} are not whole: {len(missing)} are missing,"
            f" {missing[0]} the first; bring its files here again"
        )


def _merge(layers: List[Any], options: EngineOptions, device: torch.device) -> None:
    products = merge(layers)
    if device.type != "cuda":
        return
    torch.cuda.empty_cache()  # of what the weights were before
    if options.one_row_kernel and not options.reproducible:
        with torch.no_grad():
            choose_shapes(products)
        torch.cuda.empty_cache()


def _straight_to(device: torch.device) -> Dict[str, Any]:
    """What has the weights read straight to the card, where the library can do that."""
    if device.type == "cuda" and find_spec("accelerate"):
        return {"device_map": {"": device}}
    return {}


def _layers_of(whole: Any) -> List[Any]:
    base = whole.get_decoder()
    layers = getattr(base, "layers", None)
    if layers is None:
        raise ModelError(f"{type(whole).__name__} has no list of layers: this engine can't run it")
    return list(layers)


def _plans_of(config: Any, folder: ModelFolder, count: int) -> Any:
    kinds = list(getattr(config, "layer_types", None) or ["full_attention"] * count)
    strange = sorted(set(kinds) - set(LAYER_KINDS))
    if strange or getattr(config, "use_bidirectional_attention", None):
        raise ModelError(
            f"{folder.path} ({folder.kind}) has layers of kind {', '.join(strange) or 'both ways'}:"
            f" this engine runs {' and '.join(LAYER_KINDS)}"
        )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plans = [
        LayerPlan(heads, size, config.sliding_window if kind == "sliding_attention" else None)
        for kind in kinds
    ]
    return plans, kinds


def _stops_of(whole: Any) -> List[int]:
    """Tokens that end an answer: the generation's own, else the configuration's."""
    tables: List[Dict[str, Any]] = [vars(whole.generation_config), vars(whole.config)]
    for table in tables:
        stops = table.get("eos_token_id")
        if stops is not None:
            return [int(one) for one in (stops if isinstance(stops, list) else [stops])]
    return []
