# SPDX-License-Identifier: Apache-2.0
"""The engine itself: the runtime's calls, led to the parts that do the work."""

import threading
from typing import Any, Dict, Optional, Sequence, Tuple

from gpuwarden.worker.engine import Context, Request, SlotEngine
from gpuwarden.worker.engines.transformers.answering import Answering, BrokenAnswerError
from gpuwarden.worker.engines.transformers.finding import find_folder, prepare_environment
from gpuwarden.worker.engines.transformers.folder import digest_of
from gpuwarden.worker.engines.transformers.options import EngineOptions, read_options

TEXT_WAIT_SECONDS = 0.05  # for the last words of an answer when no step is left to be sent


class Transformers(SlotEngine):
    """A model of the transformers library (see docs/models.md)."""

    simulated_vram_bytes = 20 << 30  # MedGemma 4B with a cache of 32 slots

    # The card's side.

    def load(self, context: Context) -> None:
        """Load the model and all that it will ever need. Raises OptionsError, ModelError."""
        self.options = read_options(context.options)
        prepare_environment(self.options)
        self._digest = _Digest(self.options)
        from gpuwarden.worker.engines.transformers import building  # noqa: PLC0415 - imports torch

        self.group = self.options.prefill_group
        self._built = building.build(self.options, context.max_batch, self.tell_all)
        self._runner = self._built.runner
        self._speaker = self._built.speaker

    def warm_up(self) -> None:
        """Run every shape once, so that nobody waits for a compiler."""
        self._built.prepare()

    def join_all(self, joiners: Sequence[Tuple[int, Any]]) -> None:
        """Take several in together."""
        self._built.join(joiners)

    def join(self, slot: int, item: Any) -> None:
        """Take one in."""
        self._built.join([(slot, item)])

    def step(self) -> Dict[int, Any]:
        """One step on; the answers that are complete since."""
        spoken = [(one, token, one.takes(token)) for one, token in self._runner.step()]
        self._speaker.fail([one for one, _, _ in spoken if one.broken], BrokenAnswerError())
        self._speaker.say([entry for entry in spoken if not entry[0].broken])
        wait = 0.0 if spoken or self._runner.flies else TEXT_WAIT_SECONDS
        found: Dict[int, Any] = {one.slot: why for one, why in self._runner.failed()}
        found.update({one.slot: result for one, result in self._speaker.done(wait)})
        return found

    def leave(self, slot: int) -> None:
        """Nothing of a slot's request stays, and nobody hears of it any more."""
        if slot in self._runner:
            self._speaker.forget(self._runner[slot])
        self._runner.leave(slot)

    def answering(self, slot: int) -> Answering:
        """How far a slot's request has come."""
        return self._runner[slot]

    def park(self, slot: int, parked: bool) -> bool:
        """Leave a slot out of the steps, or take it along again."""
        self._runner[slot].parked = parked
        return True

    def postprocess(self, result: Dict[str, Any]) -> Dict[str, Any]:
        """The answer, and what made it."""
        made_by = {
            "thermal_state": self.thermal_state,
            "model_digest": self._digest.value(),
            "engine": "transformers",
            "reproducible": self.options.reproducible,
        }
        return {**result, "gpuwarden": made_by}

    def memory(self) -> Optional[Tuple[int, int]]:
        """What torch's allocator holds."""
        return self._built.memory()

    # The CPU processes' side.

    def prepare(self) -> None:
        """Load tokenizer and image processor."""
        options = read_options(self.context.options)
        prepare_environment(options)
        from gpuwarden.worker.engines.transformers.prompts import Prompter  # noqa: PLC0415

        self._prompter = Prompter(options, self.context.max_pixels)

    def preprocess(self, request: Request) -> Any:
        """Tokens and pictures. Raises BadRequestError, BadImageError."""
        return self._prompter.prepare(request)


class _Digest:
    """The digest of a model's files, made while the model loads."""

    def __init__(self, options: EngineOptions) -> None:
        self._value = ""
        folder = find_folder(options.path)

        def make() -> None:
            self._value = digest_of(folder)

        self._thread = threading.Thread(target=make, name="digest", daemon=True)
        self._thread.start()

    def value(self) -> str:
        """It; waits for it."""
        self._thread.join()
        return self._value
