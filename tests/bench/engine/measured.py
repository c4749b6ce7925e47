# SPDX-License-Identifier: Apache-2.0
"""The engine as it is, with notes of what it does and counts, in files for the benchmark.

``figures.json`` and ``journal.jsonl`` of the folder that an environment variable names.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuwarden.worker.allocator import OF_TORCH
from gpuwarden.worker.engine import Context, Request
from gpuwarden.worker.engines.transformers.engine import Transformers
from tests.bench.engine.journal import Journal
from tests.bench.engine.phases import Phases
from tests.bench.engine.stages import PREPARED, READ, RESIZED, WINDOW, Stages, noted

FOLDER = "GPUWARDEN_ENGINE_FIGURES"
STARTED = "GPUWARDEN_ENGINE_STARTED"  # when the worker was started, by time.time()
FIGURES_SECONDS = 0.5


class Measured(Transformers):
    """Notes each step, group of joiners and piece of text on the way; changes nothing."""

    def load(self, context: Context) -> None:
        """Load, with a clock at each part."""
        self._folder = Path(os.environ[FOLDER])
        self._journal = Journal(self._folder / "journal.jsonl")
        self._phases = Phases()
        self._joined = 0
        self._stages = Stages()
        started = float(os.environ.get(STARTED, time.time()))
        self._phases.seconds["start of the processes"] = time.time() - started
        with self._phases.during("imports"):
            self._watch_parts()
        with self._phases.during("load"):
            super().load(context)
        threading.Thread(target=self._tell_figures, name="figures", daemon=True).start()

    def warm_up(self) -> None:
        """Warm up."""
        with self._phases.during("warm-up"):
            super().warm_up()

    def join_all(self, joiners: Sequence[tuple[int, Any]]) -> None:
        """Note who joined."""
        pictures = sum(item.picture_count for _, item in joiners)
        with self._journal.during("join", pictures):
            for slot, item in joiners:
                self._stages.joins(slot, item)
            super().join_all(joiners)
        self._joined += len(joiners)

    def join(self, slot: int, item: Any) -> None:
        """Note who joined."""
        with self._journal.during("join", item.picture_count):
            self._stages.joins(slot, item)
            super().join(slot, item)
        self._joined += 1

    def step(self) -> dict[int, Any]:
        """Note how long it took."""
        with self._journal.during("step"):
            return super().step()

    def tell_all(self, pieces: dict[int, str]) -> None:
        """Note how many were told."""
        self._journal.note(time.time(), "told", len(pieces))
        self._stages.told(pieces)
        super().tell_all(pieces)

    def drop_caches(self) -> None:
        """Note that it was done."""
        with self._journal.during("caches"):
            super().drop_caches()

    def prepare(self) -> None:
        """In a CPU process: a clock at each part of making a picture."""
        super().prepare()
        from gpuwarden.worker.engines import dicom  # noqa: PLC0415 - needs numpy
        from gpuwarden.worker.engines.transformers import pictures, shrinking  # noqa: PLC0415

        self._parts = Phases()
        self._parts.wrap(dicom, "stored", READ)
        self._parts.wrap(pictures, "window_table", WINDOW)
        self._parts.wrap(shrinking.Shrinker, "shrunk", RESIZED)

    def preprocess(self, request: Request) -> Any:
        """In a CPU process: note what it took."""
        self._parts.seconds.clear()
        with self._parts.during(PREPARED):
            item = super().preprocess(request)
        return noted(item, dict(self._parts.seconds))

    def _watch_parts(self) -> None:
        import torch  # noqa: F401, PLC0415 - only a worker has it
        import transformers  # noqa: F401, PLC0415

        from gpuwarden.worker.engines.transformers import (  # noqa: PLC0415
            building,
            decoder,
            loading,
            prefill,
        )

        watch = self._phases.wrap
        watch(building, "check_room", "of load: the plan")
        watch(building, "load_model", "of load: weights, merged")
        watch(loading, "_merge", "of load: merging, kernels tried")
        watch(decoder.Decoder, "prepare", "of warm-up: steps")
        watch(prefill.Prefill, "prepare", "of warm-up: prompts and eyes")

    def _tell_figures(self) -> None:
        import torch  # noqa: PLC0415 - the worker has it by now

        file = self._folder / "figures.json"
        while True:
            time.sleep(FIGURES_SECONDS)
            figures: dict[str, Any] = {"joined": self._joined, "phases": dict(self._phases.seconds)}
            figures["stages"] = self._stages.counted()
            if torch.cuda.is_initialized():
                seen = torch.cuda.memory_stats()
                figures |= {name: seen[key] for name, key in OF_TORCH.items()}
            file.with_suffix(".new").write_text(json.dumps(figures), encoding="ascii")
            file.with_suffix(".new").rename(file)
