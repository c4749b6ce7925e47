# SPDX-License-Identifier: Apache-2.0
"""All parts of the engine on the card's side, put together; imports torch."""

import logging
import os
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch

from gpuwarden.worker.engines.memoryplan import CardMemory
from gpuwarden.worker.engines.modelshape import ModelConfigError
from gpuwarden.worker.engines.transformers.answering import Answering
from gpuwarden.worker.engines.transformers.cache import SlotCache
from gpuwarden.worker.engines.transformers.compiler import settled, trouble
from gpuwarden.worker.engines.transformers.decoder import Decoder
from gpuwarden.worker.engines.transformers.finding import find_folder
from gpuwarden.worker.engines.transformers.graphs import Capture
from gpuwarden.worker.engines.transformers.layers import compile_eyes, compile_layers
from gpuwarden.worker.engines.transformers.loading import Model, choose_dtype, load_model
from gpuwarden.worker.engines.transformers.options import EngineOptions
from gpuwarden.worker.engines.transformers.planning import check, plan_of
from gpuwarden.worker.engines.transformers.prefill import Prefill, Prompt
from gpuwarden.worker.engines.transformers.processing import load_processor
from gpuwarden.worker.engines.transformers.prompts import Prepared
from gpuwarden.worker.engines.transformers.running import Runner
from gpuwarden.worker.engines.transformers.shapes import plan_shapes
from gpuwarden.worker.engines.transformers.speaking import Speaker

_log = logging.getLogger(__name__)
MIB = 1 << 20


class Built:
    """The loaded model with its cache, and who steps it."""

    def __init__(
        self,
        options: EngineOptions,
        model: Model,
        slots: int,
        tell: Callable[[Dict[int, str]], None],
    ) -> None:
        self.options = options
        self.model = model
        processor = load_processor(options, model.folder)
        shapes = plan_shapes(
            slots, options.cache_tokens, options.prefill_group, fixed=options.reproducible
        )
        capture = Capture(model.device, enabled=options.graphs)
        cache = SlotCache(
            model.plans,
            slots,
            options.cache_tokens,
            model.dtype,
            model.device,
            in_int8=options.cache_in_int8,
        )
        if options.compile != "none" and model.device.type == "cuda":
            compile_layers(model.layers, prompts=options.compile == "all")
            if options.compile == "all":
                compile_eyes(model.whole)
        self.decoder = Decoder(model, cache, shapes, capture)
        size = processor.picture_size if processor.sees else (0, 0)
        self.prefill = Prefill(self.decoder, capture, size)
        if self.prefill.eyes is not None:
            self.prefill.eyes.set_scale(*processor.scale)
        self.runner = Runner(self.decoder, self.prefill)
        self.speaker = Speaker(processor.decode, tell)
        self._captured = capture.enabled

    def prepare(self) -> None:
        """Run, or capture, each shape once."""
        if not self._captured:
            return
        began = time.monotonic()
        self.decoder.prepare()
        steps_done = time.monotonic()
        self.prefill.prepare()
        prompts_done = time.monotonic()
        durations = self.prefill.durations()
        self.runner.set_durations(durations)
        # What is left for the CPU are copies of a picture. Shared by all CPUs, each would have them
        # all spin for milliseconds afterwards: OpenMP's threads wait that way.
        torch.set_num_threads(1)
        _log.info(
            "captured steps in %.1f s, prompts and pictures in %.1f s, measured in %.1f s: %s",
            steps_done - began,
            prompts_done - steps_done,
            time.monotonic() - prompts_done,
            durations,
        )

    def join(self, joiners: Sequence[Tuple[int, Prepared]]) -> None:
        """Take requests into slots, all at once."""
        self.runner.join([(self._answering(slot, item), _prompt(item)) for slot, item in joiners])

    def memory(self) -> Optional[Tuple[int, int]]:
        """(reserved, allocated) bytes of the card; None without one."""
        if self.model.device.type != "cuda":
            return None
        return torch.cuda.memory_reserved(), torch.cuda.memory_allocated()

    def _answering(self, slot: int, item: Prepared) -> Answering:
        stops: List[int] = [] if item.ignore_eos else self.model.stops
        return Answering(
            slot=slot,
            prompt_tokens=len(item.tokens),
            limit=item.limit,
            stops=frozenset(stops),
            stop_texts=tuple(item.stop_texts),
            draws=item.temperature > 0,
        )


def _prompt(item: Prepared) -> Prompt:
    """A request's prompt, without a row."""
    floor = len(item.tokens) + item.least
    terms = (item.temperature, item.top_k, item.top_p, item.seed, floor)
    pictures: Any = None if item.pictures is None else torch.from_numpy(item.pictures)
    return Prompt(-1, item.tokens.tolist(), pictures, terms)


def check_room(options: EngineOptions, slots: int) -> None:
    """Say what the model will take of the card. Raises NotEnoughMemoryError, ModelError."""
    folder = find_folder(options.path)
    dtype = choose_dtype(options.torch_dtype, folder, torch.device("cuda"))
    free, total = torch.cuda.mem_get_info()
    card = CardMemory(total, options.memory_fraction, free)
    try:
        plan = plan_of(folder, options, str(dtype).rpartition(".")[2], slots, card)
    except ModelConfigError as error:
        _log.warning("what the model will take of the card can't be reckoned: %s", error)
        return
    for line in plan.table():
        _log.info("%s", line)
    check(plan, options)


def _settle_compiler(options: EngineOptions) -> EngineOptions:
    """Raises ModelError."""
    why_not = "" if options.compile == "none" else trouble(os.environ)
    if why_not:
        _log.warning("steps run uncompiled, slower: %s", why_not)
    return settled(options, why_not)


def build(options: EngineOptions, slots: int, tell: Callable[[Dict[int, str]], None]) -> Built:
    """Load the model and allocate all it will ever need.

    Raises ModelError, NotEnoughMemoryError.
    """
    if torch.cuda.is_available() and options.device != "cpu":
        options = _settle_compiler(options)
        check_room(options, slots)
        torch.cuda.set_per_process_memory_fraction(options.memory_fraction)
        if options.prealloc_mb:
            # Freed into the allocator's hands: it is reserved in one piece.
            del_me = torch.empty(options.prealloc_mb * MIB, dtype=torch.uint8, device="cuda")
            del del_me
    began = time.monotonic()
    model = load_model(options)
    _log.info("loaded the weights in %.1f s", time.monotonic() - began)
    return Built(options, model, slots, tell)
