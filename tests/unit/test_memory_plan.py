# SPDX-License-Identifier: Apache-2.0
"""What a model will take of a card, before it is loaded."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.engines.memoryplan import (
    GIB,
    INT8,
    CardMemory,
    NotEnoughMemoryError,
    Wanted,
    alternatives,
    cache_bytes,
    plan_memory,
)
from gpuwarden.worker.engines.modelshape import ModelConfigError, ModelShape, shape_of
from gpuwarden.worker.engines.transformers.folder import ModelFolder
from gpuwarden.worker.engines.transformers.options import EngineOptions
from gpuwarden.worker.engines.transformers.planning import check, plan_of

# As the two models' own config.json have it: what is the library's default is not written there.
SIGLIP = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
MEDGEMMA_4B: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
    "vision_config": SIGLIP,
}
GEMMA_3_12B: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "model_type": "gemma3_text",
        "num_attention_heads": 16,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "sliding_window": 1024,
    },
    "vision_config": SIGLIP,
}
FOUR, TWELVE = shape_of(MEDGEMMA_4B), shape_of(GEMMA_3_12B)


def test_the_parameters_of_both_models_are_what_their_cards_say() -> None:
    assert FOUR.parameters == 4_300_079_472
    assert TWELVE.parameters == 12_187_325_040
    assert (FOUR.full_layers, FOUR.sliding_layers) == (5, 29)
    assert (TWELVE.full_layers, TWELVE.sliding_layers) == (8, 40)


def test_layers_that_are_listed_count_as_they_are_listed() -> None:
    listed = {
        **MEDGEMMA_4B["text_config"],
        "layer_types": ["sliding_attention", "full_attention"] * 17,
    }
    assert shape_of({**MEDGEMMA_4B, "text_config": listed}).full_layers == 17


def test_a_text_model_with_the_usual_keys_is_counted_too() -> None:
    llama = {  # Llama 3 8B
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    }
    shape = shape_of(llama)
    assert shape.parameters == 8_030_261_248
    assert (shape.head_size, shape.sliding_layers, shape.vision) == (128, 0, None)


@pytest.mark.parametrize("value", [None, 0, -1, True, "34", 1.5])
def test_a_configuration_that_tells_no_size_is_refused_by_the_keys_name(value: object) -> None:
    text = {**MEDGEMMA_4B["text_config"], "num_hidden_layers": value}
    with pytest.raises(ModelConfigError, match="num_hidden_layers"):
        shape_of({**MEDGEMMA_4B, "text_config": text})


def test_an_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ModelConfigError, match="image_size is 13, less than one patch of 14"):
        shape_of({**MEDGEMMA_4B, "vision_config": {**SIGLIP, "image_size": 13}})


def test_the_cache_keeps_all_tokens_in_full_layers_and_a_window_in_the_others() -> None:
    a_token = 2 * 4 * 256 * 2  # keys and values, heads, values of a head, bfloat16
    short, long = Wanted(slots=32, length=1024), Wanted(slots=32, length=4096)
    assert cache_bytes(FOUR, short) == 32 * 34 * 1024 * a_token
    assert cache_bytes(FOUR, long) == 32 * (5 * 4096 + 29 * 1024) * a_token
    assert cache_bytes(FOUR, replace(short, cache_dtype="float32")) == 2 * cache_bytes(FOUR, short)
    in_int8 = cache_bytes(FOUR, replace(short, cache_dtype=INT8))
    assert in_int8 / cache_bytes(FOUR, short) == (256 + 4) / 512


def test_the_plan_for_a_large_card_is_a_table_and_fits() -> None:
    plan = plan_memory(FOUR, Wanted(32, 1024, graphs=12), CardMemory(141 * GIB))
    plan.check()
    assert plan.table() == [
        "memory plan for 32 slots of 1024 tokens:",
        "  weights        8.01 GiB  4.30e9 parameters in bfloat16",
        "  KV cache       4.25 GiB  5 layers of 1024 tokens, 29 sliding of 1024, bfloat16",
        "  prefill        0.38 GiB  4 prompts of 1024 tokens",
        "  vision         0.54 GiB  4 images of 4096 patches",
        "  logits         0.09 GiB  36 rows of 262208",
        "  graphs         0.47 GiB  12 captured",
        "  reserve        1.44 GiB  context, libraries, rounding",
        "  total         15.18 GiB  of 126.90 GiB (0.9 of 141.00 GiB)",
    ]


def test_the_documented_plan_is_printed_as_it_is_documented(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    (code,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    exec(code, {"config": MEDGEMMA_4B, "total_bytes": 141 * GIB})
    assert f"```text\n{capsys.readouterr().out}```" in text


def test_twelve_billion_parameters_need_more_than_24_gib_whatever_is_configured() -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"no setting fits.*a card with more memory"):
        plan_memory(TWELVE, Wanted(8, 4096), CardMemory(24 * GIB)).check()


def test_a_plan_that_does_not_fit_says_what_would() -> None:
    plan = plan_memory(FOUR, Wanted(32, 4096), CardMemory(16 * GIB))
    with pytest.raises(NotEnoughMemoryError) as refused:
        plan.check()
    assert str(refused.value) == (
        "32 slots of 4096 tokens need 17.96 GiB, 3.56 GiB more than the 14.40 GiB that the worker "
        "may take; would fit: 14 slots, or 960 tokens a slot, or 24 slots with a KV cache in int8"
    )
    assert plan.table()[-1].endswith("does not fit")


def test_memory_that_others_hold_counts() -> None:
    card = CardMemory(80 * GIB, free_bytes=10 * GIB)
    with pytest.raises(NotEnoughMemoryError, match=r"10.00 GiB that the worker may take"):
        plan_memory(FOUR, Wanted(32, 1024), card).check()
    assert "10.00 GiB free" in plan_memory(FOUR, Wanted(32, 1024), card).table()[-1]


def test_what_the_files_say_of_the_weights_goes_before_what_is_counted() -> None:
    plan = plan_memory(FOUR, Wanted(1, 64, weights_bytes=5 * GIB), CardMemory(24 * GIB))
    assert plan.of("weights") == 5 * GIB


def folder_of(path: Path, weights_bytes: int) -> ModelFolder:
    with (path / "model.safetensors").open("wb") as weights:
        weights.truncate(weights_bytes)  # a hole: it takes nothing of the disk
    return ModelFolder(path, {**MEDGEMMA_4B, "dtype": "bfloat16"})


def test_a_folder_is_planned_by_its_files_and_the_engines_options(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 8 * GIB)
    options = EngineOptions("somewhere", cache_tokens=1024)
    plan = plan_of(folder, options, "bfloat16", 32, CardMemory(141 * GIB))
    plan.check()
    assert plan.of("weights") == 8 * GIB
    assert plan.of("KV cache") == cache_bytes(FOUR, Wanted(32, 1024))
    assert plan.wanted.graphs > 0
    assert plan_of(folder, options, "float32", 32, CardMemory(GIB)).of("weights") == 16 * GIB
    eager = EngineOptions("somewhere", cache_tokens=1024, graphs=False)
    assert plan_of(folder, eager, "bfloat16", 32, CardMemory(GIB)).wanted.graphs == 0


def test_a_folder_with_a_cache_in_int8_is_planned_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 8 * GIB)
    options = EngineOptions("somewhere", cache_tokens=1024, cache_dtype="int8")
    plan = plan_of(folder, options, "bfloat16", 32, CardMemory(141 * GIB))
    assert plan.of("KV cache") == cache_bytes(FOUR, Wanted(32, 1024, cache_dtype=INT8))


def test_what_would_fit_is_told_with_where_it_is_set(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 8 * GIB)
    options = EngineOptions("somewhere", cache_tokens=4096)
    plan = plan_of(folder, options, "bfloat16", 32, CardMemory(18 * GIB))
    with pytest.raises(NotEnoughMemoryError, match=r"in int8 \(slots are max_batch.*cache_dtype"):
        check(plan, options)
    roomy = plan_of(folder, options, "bfloat16", 32, CardMemory(80 * GIB))
    check(roomy, options)
    with pytest.raises(NotEnoughMemoryError, match=r"prealloc_mb is 80000, and .* 73728 MiB"):
        check(roomy, replace(options, prealloc_mb=80_000))


@pytest.mark.parametrize(
    "wrong", [{"slots": 0}, {"length": 0}, {"dtype": "int4"}, {"cache_dtype": "fp8"}]
)
def test_what_cannot_be_wanted_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Wanted(**{"slots": 1, "length": 64, **wrong})


shapes = st.sampled_from([FOUR, TWELVE])
cards = st.builds(
    CardMemory,
    st.integers(8, 160).map(lambda gib: gib * GIB),
    st.floats(0.1, 1.0),
    st.none() | st.integers(4, 160).map(lambda gib: gib * GIB),
)
wishes = st.builds(
    Wanted,
    slots=st.integers(1, 256),
    length=st.integers(1, 32768),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    cache_dtype=st.sampled_from(["", "float32", "bfloat16", INT8]),
    prefill_group=st.integers(1, 4),
    prefill_length=st.integers(0, 4096),
    graphs=st.integers(0, 30),
)


@given(shapes, wishes, cards)
def test_more_of_anything_never_takes_less(
    shape: ModelShape, wanted: Wanted, card: CardMemory
) -> None:
    plan = plan_memory(shape, wanted, card)
    for larger in (
        replace(wanted, slots=wanted.slots + 1),
        replace(wanted, length=wanted.length + 1),
        replace(wanted, graphs=wanted.graphs + 1),
        replace(wanted, dtype="float32", cache_dtype=wanted.cache),
    ):
        assert plan_memory(shape, larger, card).total_bytes >= plan.total_bytes


@given(shapes, wishes, cards)
def test_whatever_is_suggested_fits_and_one_more_would_not(
    shape: ModelShape, wanted: Wanted, card: CardMemory
) -> None:
    plan = plan_memory(shape, wanted, card)
    if plan.fits:
        plan.check()
        return
    with pytest.raises(NotEnoughMemoryError) as refused:
        plan.check()
    suggested = alternatives(plan)
    assert ("would fit" in str(refused.value)) == bool(suggested)
    for one in suggested:
        assert one.fits
        if one.wanted.slots < wanted.slots:
            more = replace(one.wanted, slots=one.wanted.slots + 1)
            assert not plan_memory(shape, more, card).fits
