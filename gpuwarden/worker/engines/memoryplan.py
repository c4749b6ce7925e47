# SPDX-License-Identifier: Apache-2.0
"""How much of a card a model will take, reckoned before anything is loaded. Pure.

An engine calls it once, in ``load``::

    plan = plan_memory(shape_of(config), Wanted(slots=32, length=1024), CardMemory(total_bytes))
    for line in plan.table():
        log.info("%s", line)
    plan.check()  # NotEnoughMemoryError: what doesn't fit, and what would

Everything grows with slots, length and the bytes of a value, so what is suggested can be searched
for, and fits: a test holds it to that. Activations are added up, not the largest taken: each
captured graph keeps its own buffers.
"""

from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Optional, Tuple

from gpuwarden.worker.allocator import MEMORY_FRACTION
from gpuwarden.worker.engines.modelshape import ModelShape

MIB, GIB = 1 << 20, 1 << 30
VALUE_BYTES: Dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
INT8 = "int8"
SCALE_BYTES = 4  # float32, one for each head and position (quantised.py)
LENGTH_STEP = 64  # a suggested length is a multiple of it
PREFILL_GROUP = 4  # issue "model engines": joiners in groups of up to 4
# Context, kernels and cuBLAS workspaces of one process: what a card charges beyond the allocator.
CONTEXT_BYTES = 768 * MIB
RESERVE_SHARE = 0.05  # of what the allocator holds: rounding of blocks, and what is left in them
# A graph beyond what the allocator holds for it. Measured on an H100 80 GB (driver 580, torch 2.11,
# 2026-11-26): the first of a process 70 MiB, and 0 for a fourth of 408 kernels. One of MedGemma
# 4B's shape with its 39 graphs took 837 MiB beyond its allocator; a context alone takes 526.
FIRST_GRAPH_BYTES = 96 * MIB
GRAPH_BYTES = 32 * MIB
SAMPLED_BYTES = 10  # of one logit while it is sampled: as computed, in float32, and its softmax


class NotEnoughMemoryError(Exception):
    """A model doesn't fit; the text says what is missing, and what would fit."""


@dataclass(frozen=True)
class CardMemory:
    """The card as it is before loading.

    :ivar fraction: the worker's share of it (``memory_fraction``).
    :ivar free_bytes: what is free on it now; None: nobody else is on it.
    """

    total_bytes: int
    fraction: float = MEMORY_FRACTION
    free_bytes: Optional[int] = None

    @property
    def limit_bytes(self) -> int:
        """What the worker may take."""
        share = int(self.total_bytes * self.fraction)
        return share if self.free_bytes is None else min(share, self.free_bytes)


@dataclass(frozen=True)
class Wanted:
    """What is configured.

    :ivar slots: requests at a time; ``length``: tokens of each, prompt and answer.
    :ivar cache_dtype: of the KV cache; "" is ``dtype``.
    :ivar prefill_length: tokens of the longest prompt that is taken in at once; 0: ``length``.
    :ivar images: images of one request that are looked at together.
    :ivar graphs: captured graphs; 0 on a processor.
    :ivar weights_bytes: what the model's files say; None: counted from its shape.
    """

    slots: int
    length: int
    dtype: str = "bfloat16"
    cache_dtype: str = ""
    prefill_group: int = PREFILL_GROUP
    prefill_length: int = 0
    images: int = 1
    graphs: int = 0
    weights_bytes: Optional[int] = None

    def __post_init__(self) -> None:
        for name in ("slots", "length", "prefill_group"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, should be at least 1")
        if self.dtype not in VALUE_BYTES:
            raise ValueError(f"dtype is {self.dtype!r}, should be one of {', '.join(VALUE_BYTES)}")
        if self.cache_dtype not in ("", INT8, *VALUE_BYTES):
            allowed = ", ".join((*VALUE_BYTES, INT8))
            raise ValueError(f"cache_dtype is {self.cache_dtype!r}, should be one of {allowed}")

    @property
    def cache(self) -> str:
        """The type of the cache's values."""
        return self.cache_dtype or self.dtype


@dataclass(frozen=True)
class Part:
    """A line of the plan."""

    name: str
    size_bytes: int
    note: str = ""


@dataclass(frozen=True)
class MemoryPlan:
    """What a model takes on a card, part by part."""

    shape: ModelShape
    wanted: Wanted
    card: CardMemory
    parts: Tuple[Part, ...]

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether the worker may take so much."""
        return self.total_bytes <= self.card.limit_bytes

    def of(self, name: str) -> int:
        """The bytes of a part. Raises StopIteration for one that there isn't."""
        return next(part.size_bytes for part in self.parts if part.name == name)

    def table(self) -> List[str]:
        """The plan as lines of text."""
        wanted, card = self.wanted, self.card
        lines = [f"memory plan for {wanted.slots} slots of {wanted.length} tokens:"]
        lines += [_line(part.name, part.size_bytes, part.note) for part in self.parts]
        of = f"of {_gib(card.limit_bytes)} ({card.fraction:g} of {_gib(card.total_bytes)}"
        held = "" if card.free_bytes is None else f", {_gib(card.free_bytes)} free"
        verdict = "" if self.fits else ": does not fit"
        return [*lines, _line("total", self.total_bytes, f"{of}{held}){verdict}")]

    def check(self) -> None:
        """Raises NotEnoughMemoryError, which says what would fit, if this doesn't."""
        if not self.fits:
            missing = _gib(self.total_bytes - self.card.limit_bytes)
            raise NotEnoughMemoryError(
                f"{self.wanted.slots} slots of {self.wanted.length} tokens need "
                f"{_gib(self.total_bytes)}, {missing} more than the "
                f"{_gib(self.card.limit_bytes)} that the worker may take; {_advice(self)}"
            )


def plan_memory(shape: ModelShape, wanted: Wanted, card: CardMemory) -> MemoryPlan:
    """What a model takes. Nothing is refused here: see :meth:`MemoryPlan.check`."""
    value = VALUE_BYTES[wanted.dtype]
    weights = wanted.weights_bytes
    counted = f"{shape.parameters / 1e9:.2f}e9 parameters in {wanted.dtype}"
    kept = [
        Part(
            "weights",
            shape.parameters * value if weights is None else weights,
            counted if weights is None else f"as its files say, in {wanted.dtype}",
        ),
        Part("KV cache", cache_bytes(shape, wanted), _cache_note(shape, wanted)),
        *_activations(shape, wanted, value),
    ]
    if wanted.graphs:
        graphs = FIRST_GRAPH_BYTES + wanted.graphs * GRAPH_BYTES
        kept.append(Part("graphs", graphs, f"{wanted.graphs} captured"))
    rounding = int(sum(part.size_bytes for part in kept) * RESERVE_SHARE)
    reserve = Part("reserve", CONTEXT_BYTES + rounding, "context, libraries, rounding")
    return MemoryPlan(shape, wanted, card, (*kept, reserve))


def cache_bytes(shape: ModelShape, wanted: Wanted) -> int:
    """Keys and values: full layers keep ``length`` tokens of a slot, sliding ones their window."""
    tokens = wanted.slots * (
        shape.full_layers * wanted.length
        + shape.sliding_layers * min(wanted.length, shape.window or wanted.length)
    )
    return tokens * 2 * shape.kv_heads * _head_bytes(shape, wanted.cache)


def _head_bytes(shape: ModelShape, dtype: str) -> int:
    """A key or a value of one head at one position."""
    if dtype == INT8:
        return shape.head_size + SCALE_BYTES
    return shape.head_size * VALUE_BYTES[dtype]


def _cache_note(shape: ModelShape, wanted: Wanted) -> str:
    note = f"{shape.full_layers} layers of {wanted.length} tokens"
    if shape.sliding_layers:
        note += f", {shape.sliding_layers} sliding of {min(wanted.length, shape.window)}"
    return f"{note}, {wanted.cache}"


def _activations(shape: ModelShape, wanted: Wanted, value: int) -> List[Part]:
    """What one run of each graph has in hand at its widest place: within one layer."""
    group = min(wanted.prefill_group, wanted.slots)
    prompt = min(wanted.prefill_length or wanted.length, wanted.length)
    # The layer's input, its norm, the residual and the result; queries and the heads' output;
    # keys and values spread over all heads; gate, up and their product.
    attended = shape.heads * shape.head_size
    of_token = 4 * shape.hidden + 4 * attended + 3 * shape.intermediate
    mask = group * prompt * prompt
    parts = [
        Part(
            "prefill",
            (group * prompt * of_token + mask) * value,
            f"{group} prompts of {prompt} tokens",
        )
    ]
    if shape.vision is not None and wanted.images:
        tower, count = shape.vision, group * wanted.images
        of_patch = 8 * tower.hidden + 2 * tower.intermediate
        size = count * tower.patches * of_patch * value
        parts.append(Part("vision", size, f"{count} images of {tower.patches} patches"))
    rows = wanted.slots + group
    logits = rows * shape.vocabulary * SAMPLED_BYTES
    parts.append(Part("logits", logits, f"{rows} rows of {shape.vocabulary}"))
    if wanted.cache == INT8:
        dense = wanted.slots * wanted.length * 2 * shape.kv_heads * shape.head_size * value
        parts.append(Part("dequantised", dense, "one layer of the cache at a time"))
    return parts


# --- what would fit


def alternatives(plan: MemoryPlan) -> List[MemoryPlan]:
    """Plans that fit the same card: fewer slots, a shorter length, an int8 cache.

    With an int8 cache as many slots as fit, if that is more than without. None if nothing fits.
    """
    wanted = plan.wanted
    fewer = _largest(wanted.slots - 1, lambda slots: _with(plan, slots=slots))
    shorter = _largest(
        (wanted.length - 1) // LENGTH_STEP, lambda steps: _with(plan, length=steps * LENGTH_STEP)
    )
    found = [fewer, shorter]
    if wanted.cache != INT8:
        in_int8 = _largest(wanted.slots, lambda slots: _with(plan, slots=slots, cache_dtype=INT8))
        if in_int8 and (fewer is None or in_int8.wanted.slots > fewer.wanted.slots):
            found.append(in_int8)
    return [one for one in found if one is not None]


def _with(plan: MemoryPlan, **changes: object) -> MemoryPlan:
    return plan_memory(plan.shape, replace(plan.wanted, **changes), plan.card)  # type: ignore[arg-type] # fields by name


def _largest(most: int, planned: Callable[[int], MemoryPlan]) -> Optional[MemoryPlan]:
    """The plan of the largest number from 1 to ``most`` that fits; it takes more for a larger."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if planned(middle).fits:
            low = middle
        else:
            high = middle - 1
    return planned(low) if low else None


def _advice(plan: MemoryPlan) -> str:
    options = [_changed(plan.wanted, one.wanted) for one in alternatives(plan)]
    if options:
        return f"would fit: {', or '.join(options)}"
    least = _with(plan, slots=1, length=min(plan.wanted.length, LENGTH_STEP), cache_dtype=INT8)
    return (
        f"no setting fits: one slot of {least.wanted.length} tokens with an int8 cache needs "
        f"{_gib(least.total_bytes)}; it takes a card with more memory, or a smaller model"
    )


def _changed(wanted: Wanted, other: Wanted) -> str:
    """What of the configuration is otherwise."""
    changes = []
    if other.slots != wanted.slots:
        changes.append(f"{other.slots} slots")
    if other.length != wanted.length:
        changes.append(f"{other.length} tokens a slot")
    if other.cache != wanted.cache:
        changes.append(f"a KV cache in {other.cache}")
    return " with ".join(changes)


def _line(name: str, size_bytes: int, note: str) -> str:
    return f"  {name:<12}{_gib(size_bytes):>11}  {note}".rstrip()


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.2f} GiB"
