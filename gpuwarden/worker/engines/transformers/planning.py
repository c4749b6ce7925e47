# SPDX-License-Identifier: Apache-2.0
"""What a model's folder will take of the card, by its files and the options, before it is read."""

from typing import Optional

from gpuwarden.worker.engines.memoryplan import (
    INT8,
    MIB,
    VALUE_BYTES,
    CardMemory,
    MemoryPlan,
    NotEnoughMemoryError,
    Wanted,
    plan_memory,
)
from gpuwarden.worker.engines.modelshape import shape_of
from gpuwarden.worker.engines.transformers.folder import ModelFolder
from gpuwarden.worker.engines.transformers.options import EngineOptions
from gpuwarden.worker.engines.transformers.shapes import PROMPT_STEPS, plan_shapes

SETTINGS = (
    "slots are max_batch in [workers], tokens a slot cache_tokens and the KV cache's type"
    " cache_dtype in [workers.options]"
)


def plan_of(
    folder: ModelFolder, options: EngineOptions, dtype: str, slots: int, card: CardMemory
) -> MemoryPlan:
    """The plan. Raises ModelConfigError where the files don't say enough for one.

    :param dtype: of weights and what is computed, as torch names it without ``torch.``.
    """
    shape = shape_of(folder.config)
    shapes = plan_shapes(
        slots, options.cache_tokens, options.prefill_group, fixed=options.reproducible
    )
    steps = len(shapes.slots) * len(shapes.lengths)
    prefills = (len(shapes.prompts) + (shape.vision is not None)) * len(shapes.groups)
    wanted = Wanted(
        slots=slots,
        length=options.cache_tokens,
        dtype=dtype,
        cache_dtype=INT8 if options.cache_in_int8 else "",
        prefill_group=options.prefill_group,
        prefill_length=min(PROMPT_STEPS[-1], options.cache_tokens),
        graphs=steps + prefills if options.graphs else 0,
        weights_bytes=weights_bytes(folder, dtype),
    )
    return plan_memory(shape, wanted, card)


def check(plan: MemoryPlan, options: EngineOptions) -> None:
    """Raises NotEnoughMemoryError, which says what would fit and where that is set."""
    most_mib = plan.card.limit_bytes // MIB
    if options.prealloc_mb > most_mib:
        raise NotEnoughMemoryError(
            f"prealloc_mb is {options.prealloc_mb}, and the worker may take {most_mib} MiB of the"
            " card: lower it in [workers.options], or leave it out"
        )
    try:
        plan.check()
    except NotEnoughMemoryError as error:
        raise NotEnoughMemoryError(f"{error} ({SETTINGS})") from error


def weights_bytes(folder: ModelFolder, dtype: str) -> Optional[int]:
    """What the weights in a folder take in a type; None where its files are no measure of it."""
    stored = VALUE_BYTES.get(folder.dtype)
    size = sum(file.stat().st_size for file in folder.path.glob("*.safetensors"))
    return size * VALUE_BYTES[dtype] // stored if stored and size else None
