# SPDX-License-Identifier: Apache-2.0
"""The engine driven by hand, and the library's own generation beside it."""

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from gpuwarden.worker.engine import Audience, Context, Request
from gpuwarden.worker.engines.transformers.engine import Transformers

logging.disable_progress_bar()

STEPS_LIMIT = 2000


@dataclass(frozen=True)
class Asked:
    """One request: a question, an image (by the seed of its noise) or none, parameters."""

    question: str
    image: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    def request(self) -> Request:
        """As the runtime hands it over."""
        body = b"" if self.image is None else png(self.image)
        return Request(self.question, "image/png", dict(self.parameters), memoryview(body))


def asked(question: str, image: int | None = None, **parameters: Any) -> Asked:
    return Asked(question, image, parameters)


def noise(seed: int) -> Any:
    return (numpy.random.default_rng(seed).random((64, 80, 3)) * 255).astype("u1")


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(seed)).save(stream, "PNG")
    return stream.getvalue()


class Listener(Audience):
    """All pieces, by slot."""

    def __init__(self) -> None:
        self.pieces: dict[int, list[str]] = {}

    def hear(self, index: int, text: str) -> None:
        self.pieces.setdefault(index, []).append(text)


class Driver:
    """An engine that is loaded, and the tokens that its slots have had."""

    def __init__(self, folder: Path, slots: int = 4, **options: Any) -> None:
        whole = {"path": str(folder), "torch_dtype": "float32", "cache_tokens": 256, **options}
        self.engine = Transformers()
        context = Context(model="tiny", options=whole, max_batch=slots)
        self.engine.context = context
        self.engine.load(context)
        self.engine.warm_up()
        self.engine.prepare()
        self.listener = Listener()
        self.engine.audience = self.listener
        self.results: dict[int, dict[str, Any]] = {}
        self.tokens: dict[int, list[int]] = {}

    def join(self, slot: int, one: Asked) -> None:
        self.join_all({slot: one})

    def join_all(self, several: dict[int, Asked]) -> None:
        joiners = [(slot, self.engine.preprocess(one.request())) for slot, one in several.items()]
        for slot, _ in joiners:
            self.results.pop(slot, None)
        if len(joiners) == 1:
            self.engine.join(*joiners[0])
        else:
            self.engine.join_all(joiners)
        for slot, _ in joiners:
            self.tokens[slot] = self.engine.answering(slot).tokens

    def steps(self, count: int) -> None:
        for _ in range(count):
            for slot, result in self.engine.step().items():
                self.results[slot] = self.engine.postprocess(result)
                self.engine.leave(slot)

    def until_all_are_through(self, *slots: int) -> None:
        for _ in range(STEPS_LIMIT):
            if all(slot in self.results for slot in slots):
                return
            self.steps(1)
        raise AssertionError(f"not through after {STEPS_LIMIT} steps: {slots}")

    def alone(self, one: Asked) -> list[int]:
        """The tokens of a request that has the engine for itself."""
        self.join(0, one)
        self.until_all_are_through(0)
        return self.tokens[0]


def mixed(chance: random.Random) -> list[Asked]:
    """Requests of many lengths, with and without a picture."""
    return [
        asked("q" * chance.randrange(1, 90), chance.choice([None, 1, 2]), max_tokens=length)
        for length in (1, 2, 30, 7, 45, 12)
    ]


def in_company(
    driver: Driver, requests: Sequence[Asked], chance: random.Random
) -> Iterator[tuple[Asked, list[int]]]:
    """Have them come, up to three at a time, and go; each with its tokens once it is through."""
    waiting = list(requests)
    inside: dict[int, Asked] = {}
    while waiting or inside:
        free = [slot for slot in range(4) if slot not in inside]
        group = dict(zip(free, waiting[: chance.randrange(0, 4)], strict=False))
        waiting = waiting[len(group) :]
        inside.update(group)
        if group:
            driver.join_all(group)
        driver.steps(chance.randrange(1, 12))
        for slot in [slot for slot in inside if slot in driver.results]:
            yield inside.pop(slot), driver.tokens[slot]


@cache
def _reference(folder: Path) -> tuple[Any, Any]:
    eyes = (folder / "processor_config.json").exists()
    kind = AutoModelForImageTextToText if eyes else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model, AutoProcessor.from_pretrained(folder, local_files_only=True)


@cache
def _generated(folder: Path, question: str, image: int | None, limit: int) -> tuple[int, ...]:
    model, processor = _reference(folder)
    parts: list[dict[str, Any]] = [{"type": "text", "text": question}]
    inputs: Any
    if hasattr(processor, "image_processor"):
        if image is not None:
            parts.insert(0, {"type": "image"})
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        images = {} if image is None else {"images": [[noise(image)]]}
        inputs = processor(text=[prompt], return_tensors="pt", add_special_tokens=False, **images)
    else:
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(prompt, return_tensors="pt", add_special_tokens=False)
    inputs.pop("num_crops", None)
    with torch.no_grad():
        found = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
    return tuple(found[0, inputs["input_ids"].shape[1] :].tolist())


def generated(folder: Path, one: Asked) -> list[int]:
    """What the library's own ``generate`` answers, greedily."""
    limit = one.parameters.get("max_tokens", 512)
    return list(_generated(folder, one.question, one.image, limit))
