# SPDX-License-Identifier: Apache-2.0
"""The engine's options, from ``[workers.options]``: checked once, with all problems in one text."""

from dataclasses import dataclass, fields
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type

from gpuwarden.worker.engines.problems import RUNTIMES_OWN, OptionProblem, refuse

DTYPES = ("auto", "bfloat16", "float32", "float16")
CACHE_DTYPES = ("auto", "int8")
ATTENTIONS = ("auto", "sdpa", "eager")
COMPILES = ("auto", "all", "steps", "none")
DEVICES = ("auto", "cuda", "cpu")


@dataclass(frozen=True)
class EngineOptions:
    """How a model is loaded and run.

    :ivar path: the model's folder, or its name in the library's cache on this machine.
    :ivar torch_dtype: of weights and KV cache; ``auto`` as the model's files say.
    :ivar cache_dtype: of the KV cache: ``auto`` that of the weights, or ``int8``, which takes half
        of bfloat16's memory and changes answers a little.
    :ivar attn_implementation: of steps: torch's fused attention (``sdpa``), or plain products
        (``eager``), which ``auto`` takes on a card: there they are faster at every shape.
    :ivar device: ``auto`` takes the card where there is one.
    :ivar cache_tokens: tokens a slot has room for, prompt and answer together.
    :ivar max_new_tokens: of an answer, where the request doesn't say.
    :ivar do_sample: whether an answer is drawn, where the request gives no temperature.
    :ivar temperature, top_k, top_p: of drawing, where the request doesn't say; 0 and 1: no limit.
    :ivar tf32: whether float32 products may be rounded to TF32 on the card.
    :ivar compile: which runs of the layers are compiled, on a card: ``all``, only ``steps``,
        ``none``; ``auto`` all, where there is a C compiler and a folder for what it makes.
    :ivar graphs: whether steps are captured in CUDA graphs (a card only).
    :ivar merge_weights: whether weights that read the same input are merged at load.
    :ivar one_row_kernel: whether products of one row may go by a kernel of our own (a card only,
        never where answers are to be reproducible).
    :ivar prefill_group: how many requests join together, at most.
    :ivar reproducible: always the same shapes: an answer hangs on its request alone.
    :ivar allocator: settings of torch's memory allocator, as in PYTORCH_CUDA_ALLOC_CONF.
    :ivar memory_fraction: of the card's memory that this worker may take.
    :ivar prealloc_mb: MiB that are reserved at load in one piece.
    :ivar warning_threshold: fraction of its memory from which on a warning is due.
    :ivar window_percentiles: what becomes black and white of an image of over 8 bits.
    """

    path: str
    torch_dtype: str = "auto"
    cache_dtype: str = "auto"
    attn_implementation: str = "auto"
    device: str = "auto"
    cache_tokens: int = 2048
    max_new_tokens: int = 512
    do_sample: bool = False
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    tf32: bool = True
    compile: str = "auto"
    graphs: bool = True
    merge_weights: bool = True
    one_row_kernel: bool = True
    prefill_group: int = 4
    reproducible: bool = False
    allocator: str = ""
    memory_fraction: float = 0.9
    prealloc_mb: int = 0
    warning_threshold: float = 0.8
    window_percentiles: Tuple[float, float] = (0.5, 99.5)

    @property
    def cache_in_int8(self) -> bool:
        """Whether the KV cache is quantised."""
        return self.cache_dtype == "int8"

    @property
    def default_temperature(self) -> float:
        """The temperature of who gives none; 0 is greedy."""
        return self.temperature if self.do_sample else 0.0


_WORDS = {
    "torch_dtype": DTYPES,
    "cache_dtype": CACHE_DTYPES,
    "attn_implementation": ATTENTIONS,
    "device": DEVICES,
    "compile": COMPILES,
}
_BOUNDS: Dict[str, Tuple[float, float]] = {
    "cache_tokens": (16, 1 << 20),
    "max_new_tokens": (1, 1 << 20),
    "temperature": (0, 2),
    "top_k": (0, 1 << 20),
    "top_p": (0.001, 1),
    "prefill_group": (1, 8),
    "memory_fraction": (0.05, 1),
    "prealloc_mb": (0, 1 << 20),
    "warning_threshold": (0.05, 1),
}
_KINDS: Dict[str, Tuple[Type[Any], ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
_NAMES = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}
_WANTED = {
    "path": "the model's folder, or its name in the library's cache",
    "window_percentiles": "two numbers from 0 to 100, the lower one first",
}


def problems_of(table: Mapping[str, Any]) -> List[OptionProblem]:
    """Everything that is wrong with the options in a table."""
    known = {entry.name: _name_of(entry.type) for entry in fields(EngineOptions)}
    problems = []
    if "path" not in table:
        problems.append(OptionProblem("path", "", _WANTED["path"]))
    for name, value in table.items():
        if name in known:
            wanted = _problem_of(name, known[name], value)
            if wanted:
                problems.append(OptionProblem(name, repr(value), wanted))
        elif name not in RUNTIMES_OWN:
            wanted = f"one of {', '.join(sorted(known))}"
            problems.append(OptionProblem(name, "no such option", wanted))
    return problems


def read_options(table: Mapping[str, Any]) -> EngineOptions:
    """The options in a table. Raises OptionsError with every problem found."""
    refuse(problems_of(table))
    known = {entry.name for entry in fields(EngineOptions)}
    given = {name: value for name, value in table.items() if name in known}
    if "window_percentiles" in given:
        given["window_percentiles"] = tuple(given["window_percentiles"])
    return EngineOptions(**given)


def _name_of(kind: Any) -> str:
    return kind if isinstance(kind, str) else str(getattr(kind, "__name__", kind))


def _problem_of(name: str, kind: str, value: Any) -> Optional[str]:
    """What a value should be; None where it is that."""
    if name == "window_percentiles":
        return None if _is_window(value) else _WANTED[name]
    if kind == "bool":
        return None if isinstance(value, bool) else _NAMES["bool"]
    if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
        return _NAMES[kind]
    if name in _WORDS and value not in _WORDS[name]:
        return f"one of {', '.join(_WORDS[name])}"
    if name in _BOUNDS and not _BOUNDS[name][0] <= value <= _BOUNDS[name][1]:
        return f"{_NAMES[kind]} from {_BOUNDS[name][0]} to {_BOUNDS[name][1]}"
    return _WANTED[name] if name == "path" and not value.strip() else None


def _is_window(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    numbers: List[Any] = list(value)
    if any(isinstance(one, bool) or not isinstance(one, (int, float)) for one in numbers):
        return False
    return bool(0 <= numbers[0] < numbers[1] <= 100)
