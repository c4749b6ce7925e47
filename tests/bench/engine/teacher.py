# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.engine.teacher FOLDER tiny|card OUT SECONDS``: the engine's own choices.

transformers' own forward is shown each answer's tokens and says what it would have chosen at each
place. In bfloat16 kernels round by their shapes, so the reference is asked in other shapes as well:
how far its own margins move is the noise of the run. Then the same with a cache in int8, and a
fixed bucket: one request's tokens in any company. OUT is written after each part.
"""

import gc
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from gpuwarden.worker.engines.transformers.options import EngineOptions
from tests.bench.engine.margins import Place, counts_of
from tests.bench.engine.sizes import CARD, TINY, Sizes

CASES = 16
GROUP = 4  # requests that join together
STEPS_BETWEEN = 3
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LEAST_SECONDS = 40.0  # a part with less is left out
CACHE_OPTION = "cache_dtype"


class Teacher:
    """All parts for one model, as long as there is time."""

    def __init__(self, folder: Path, sizes: Sizes, out: Path, until: float) -> None:
        self._folder, self._sizes, self._out, self._until = folder, sizes, out, until
        self.found: dict[str, Any] = {}
        self._cases = _cases(sizes)
        self._noise = 0.0
        self._tokens: list[list[int]] = []

    def run(self) -> None:
        """All of it."""
        self._part("engine", self._engine)
        self._part("reference", self._reference)
        self._part("int8", self._int8)
        self._part("fixed_bucket", self._fixed_bucket)

    def _part(self, name: str, run: Callable[[], dict[str, Any]]) -> None:
        began = time.monotonic()
        if self._until - began < LEAST_SECONDS:
            self.found[name] = {"cut_short": "left out: no time was left"}
        else:
            try:
                self.found[name] = run()
            except Exception as error:  # noqa: BLE001 - the next part may work
                self.found[name] = {
                    "error": f"{type(error).__name__}: {error}"[:2000],
                    "trace": traceback.format_exc()[-2000:],
                }
        self.found[name]["seconds"] = round(time.monotonic() - began, 1)
        print(name, json.dumps(self.found[name]), flush=True)
        self._out.write_text(json.dumps(self.found, indent=1))

    def _engine(self) -> dict[str, Any]:
        self._tokens, found = _answered(self._folder, self._sizes, self._cases)
        return found

    def _reference(self) -> dict[str, Any]:
        reference = Reference(self._folder, self._sizes, self._cases)
        places = reference.places(self._tokens)
        found = counts_of(places)
        self._noise = found["noise"]
        return found

    def _int8(self) -> dict[str, Any]:
        if CACHE_OPTION not in {entry.name for entry in fields(EngineOptions)}:
            return {"cut_short": f"this engine has no option {CACHE_OPTION}"}
        options = {CACHE_OPTION: "int8"}
        tokens, found = _answered(self._folder, self._sizes, self._cases, **options)
        reference = Reference(self._folder, self._sizes, self._cases)
        found |= counts_of(reference.places(tokens, with_noise=False), self._noise)
        same = [_same(one, other) for one, other in zip(tokens, self._tokens, strict=True)]
        found["answers"] = len(same)
        found["answers_like_without"] = sum(n == self._sizes.answer_tokens for n in same)
        found["tokens_until_they_part"] = sorted(same)[len(same) // 2]
        return found

    def _fixed_bucket(self) -> dict[str, Any]:
        """A request alone, and then in any row, group and company."""
        driver = _driver(self._folder, self._sizes, reproducible=True)
        one, others = self._cases[0], self._cases[1:]
        expected = list(driver.alone(one))
        chance = random.Random(7)
        last = self._sizes.slots - 1
        compared, different = 0, 0
        for _ in range(6):
            slots = list(range(last + 1))
            chance.shuffle(slots)
            mine, rest = slots[0], slots[1:]
            beside = chance.sample(others, min(len(rest), len(others), chance.randrange(1, 16)))
            company = dict(zip(rest, beside, strict=False))
            _join(driver, list(company.items())[: len(company) // 2])
            driver.join(mine, one)
            driver.steps(STEPS_BETWEEN)
            _join(driver, list(company.items())[len(company) // 2 :])
            driver.until_all_are_through(mine, *company)
            compared += 1
            different += driver.tokens[mine] != expected
        _forget(driver)
        return {"answers": compared, "different": different, "tokens": len(expected)}


class Reference:
    """The library's model and processor."""

    def __init__(self, folder: Path, sizes: Sizes, cases: list[Any]) -> None:
        import torch  # noqa: PLC0415
        from transformers import AutoProcessor, Gemma3ForConditionalGeneration  # noqa: PLC0415

        self._torch: Any = torch
        self._sizes = sizes
        self._model: Any = Gemma3ForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, sizes.dtype), local_files_only=True
        ).to(sizes.device)
        self._model.eval()
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        self._inputs = [_inputs_of(processor, one) for one in cases]

    def places(self, answers: list[list[int]], *, with_noise: bool = True) -> list[Place]:
        """What it thinks of each token of each answer, and how much it moves by itself."""
        plain = self._logits(answers, 1)
        others: list[Callable[[], list[Any]]] = []
        if with_noise:
            others = [partial(self._logits, answers, 8), partial(self._logits, answers, 1, "eager")]
        found: list[list[dict[str, Any]]] = [
            _judged(*pair) for pair in zip(plain, answers, strict=True)
        ]
        for other in others:
            for rows, logits in zip(found, other(), strict=True):
                _moved(rows, logits)
        return [Place(**row) for rows in found for row in rows]

    def _logits(self, answers: list[list[int]], batch: int, attention: str = "sdpa") -> list[Any]:
        """[answer, vocabulary] of each; those of one length go together."""
        self._model.set_attn_implementation(attention)
        found: list[Any] = [None] * len(answers)
        lengths = [int(one["input_ids"].shape[1]) for one in self._inputs]
        for length in sorted(set(lengths)):
            members = [n for n, other in enumerate(lengths) if other == length]
            for start in range(0, len(members), batch):
                part = members[start : start + batch]
                for number, logits in zip(part, self._forward(part, answers), strict=True):
                    found[number] = logits
        return found

    def _forward(self, part: list[int], answers: list[list[int]]) -> Any:
        torch = self._torch
        count = len(answers[part[0]])
        whole: dict[str, Any] = {}
        for name in ("input_ids", "token_type_ids"):
            rows = []
            for number in part:
                own = self._inputs[number][name][0].tolist()
                added = answers[number][:-1] if name == "input_ids" else [0] * (count - 1)
                rows.append(own + added)
            whole[name] = torch.tensor(rows, device=self._sizes.device)
        pictures = [self._inputs[n].get("pixel_values") for n in part]
        if pictures[0] is not None:
            pixels = torch.cat(pictures).to(self._sizes.device)
            whole["pixel_values"] = pixels.to(self._model.dtype)
        with torch.no_grad():
            return self._model(**whole, use_cache=False, logits_to_keep=count).logits


def _judged(logits: Any, answer: list[int]) -> list[dict[str, Any]]:
    """Of each place: the reference's first two choices and how far apart, and the engine's."""
    exact = logits.float()
    best = exact.topk(2, dim=-1)
    rows = []
    for place, token in enumerate(answer):
        first, second = best.values[place].tolist()
        rows.append(
            {
                "first": int(best.indices[place, 0]),
                "second": int(best.indices[place, 1]),
                "margin": first - second,
                "behind": first - float(exact[place, token]),
                "chosen": token,
                "moved": 0.0,
            }
        )
    return rows


def _moved(rows: list[dict[str, Any]], logits: Any) -> None:
    """Note how far the margin of the first two has moved in other shapes."""
    for place, row in enumerate(rows):
        other = float(logits[place, row["first"]]) - float(logits[place, row["second"]])
        row["moved"] = max(row["moved"], abs(other - row["margin"]))


def _cases(sizes: Sizes) -> list[Any]:
    """Requests with an image and without, each sort of one length."""
    from tests.engine.driving import asked  # noqa: PLC0415 - it imports torch

    chance = random.Random(3)
    named = {
        "max_tokens": sizes.answer_tokens,
        "min_tokens": sizes.answer_tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    return [
        asked(
            "".join(chance.choice(LETTERS) for _ in range(30)),
            number if number % 4 else None,
            **named,
        )
        for number in range(CASES)
    ]


def _inputs_of(processor: Any, one: Any) -> Any:
    from tests.engine.driving import noise  # noqa: PLC0415

    parts: list[dict[str, Any]] = [{"type": "text", "text": one.question}]
    images: dict[str, Any] = {}
    if one.image is not None:
        parts.insert(0, {"type": "image"})
        images = {"images": [[noise(one.image)]]}
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    return processor(text=[prompt], return_tensors="pt", add_special_tokens=False, **images)


def _driver(folder: Path, sizes: Sizes, **options: Any) -> Any:
    from tests.engine.driving import Driver  # noqa: PLC0415

    whole = {"torch_dtype": "auto", "cache_tokens": sizes.cache_tokens, "device": sizes.device}
    return Driver(folder, sizes.slots, **{**whole, **options})


def _join(driver: Any, several: list[tuple[int, Any]]) -> None:
    for start in range(0, len(several), GROUP):
        driver.join_all(dict(several[start : start + GROUP]))
        driver.steps(STEPS_BETWEEN)


def _answered(
    folder: Path, sizes: Sizes, cases: list[Any], **options: Any
) -> tuple[list[list[int]], dict[str, Any]]:
    """The engine's answers, given while others join and leave; what its memory takes."""
    import torch  # noqa: PLC0415

    card = sizes.device == "cuda"
    driver = _driver(folder, sizes, **options)
    memory = {"allocated_bytes": torch.cuda.memory_allocated()} if card else {}
    tokens: list[list[int]] = []
    for start in range(0, len(cases), sizes.slots):
        several = dict(enumerate(cases[start : start + sizes.slots]))
        _join(driver, list(several.items()))
        driver.until_all_are_through(*several)
        tokens += [list(driver.tokens[slot]) for slot in several]
    if card:
        memory["peak_bytes"] = torch.cuda.max_memory_allocated()
        memory["reserved_bytes"] = torch.cuda.memory_reserved()
    _forget(driver)
    del driver
    _free(card)
    distinct = sorted(len(set(one)) for one in tokens)
    return tokens, {
        "answers": len(tokens),
        "tokens_of_each": len(tokens[0]),
        "different_tokens_of_each": distinct[len(distinct) // 2],
        **memory,
    }


def _forget(driver: Any) -> None:
    """Nothing of it stays on the card."""
    driver.engine._speaker.close()
    vars(driver.engine).clear()


def _free(card: bool) -> None:
    import torch  # noqa: PLC0415

    gc.collect()
    if card:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch._dynamo.reset()


def _same(one: list[int], other: list[int]) -> int:
    """How many tokens are the same from the start."""
    pairs = enumerate(zip(one, other, strict=True))
    return next((place for place, (mine, its) in pairs if mine != its), len(one))


if __name__ == "__main__":
    if sys.argv[2] == "tiny":
        os.environ["OMP_NUM_THREADS"] = "1"
    chosen_sizes = TINY if sys.argv[2] == "tiny" else CARD
    ending = time.monotonic() + float(sys.argv[4])
    Teacher(Path(sys.argv[1]), chosen_sizes, Path(sys.argv[3]), ending).run()
