# SPDX-License-Identifier: Apache-2.0
"""The sections on two cards: a worker on each, one front door, twice the callers."""

import time
from typing import Any

from tests.bench.engine.bench import Bench
from tests.bench.engine.stages import stages_between
from tests.bench.engine.summary import summary_of

WARM_UP = 2  # requests of each caller


class TwoCards:
    """Both first, since both are loaded at once; then one of them alone, in the same run."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        # On the CPU there are no cards: a trial of this program.
        self._requests = 20 if bench.on_card else 3
        self.sections = (
            ("load_cold", self.load, 260.0),
            ("two", self.two, 120.0),
            ("two_small_images", self.two_small_images, 60.0),
            ("one", self.one, 100.0),
            ("one_small_images", self.one_small_images, 60.0),
        )

    def load(self) -> dict[str, Any]:
        """Both workers, at the same time."""
        return self._bench.load(0, 1)

    def two(self) -> dict[str, Any]:
        """Twice the callers on two cards; how evenly the cards answered."""
        self._bench.need_worker(0)
        self._bench.need_worker(1)
        return self._measure([0, 1])

    def two_small_images(self) -> dict[str, Any]:
        """The same where each request brings little: the cards without the way of 32 MiB."""
        return self._measure([0, 1], images=self._small)

    def one(self) -> dict[str, Any]:
        """The other one is stopped, as by an operator."""
        self._bench.workers.pop(1).stop()
        time.sleep(1.0)
        return self._measure([0])

    def one_small_images(self) -> dict[str, Any]:
        """One card where each request brings little."""
        return self._measure([0], images=self._small)

    @property
    def _small(self) -> list[str]:
        return self._bench.mixed_images[2:3] or self._bench.images[:1]

    def _measure(self, numbers: list[int], **wanted: Any) -> dict[str, Any]:
        bench = self._bench
        callers = bench.sizes.callers * len(numbers)
        bench.ask(callers=callers, requests=WARM_UP * callers, **wanted)
        before = [bench.figures(number) for number in numbers]
        requests = self._requests * callers
        told = bench.ask(callers=callers, requests=requests, **wanted)
        after = [bench.figures(number) for number in numbers]
        pairs = list(zip(before, after, strict=True))
        shares = [late.get("joined", 0) - early.get("joined", 0) for early, late in pairs]
        found = summary_of(told, requests)
        found["stages_milliseconds"] = stages_between(pairs)
        found["requests_of_each_card"] = shares
        if sum(shares):
            # 0: each had as many.
            found["uneven"] = max(shares) / (sum(shares) / len(shares)) - 1
        return found
