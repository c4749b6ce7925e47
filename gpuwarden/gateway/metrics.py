# SPDX-License-Identifier: Apache-2.0
"""``/metrics``: what a Prometheus server reads."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from gpuwarden.exposition.definition import Definition, Sample
from gpuwarden.exposition.text import Exposition
from gpuwarden.gateway import meters
from gpuwarden.gateway.histogram import Buckets

SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)


class Metrics:
    """The histograms, fed as things happen, and figures that are read when somebody asks."""

    def __init__(self) -> None:
        self._queue_wait, self._execution, self._total = (Buckets(SECONDS) for _ in range(3))
        self._batches = Buckets(BATCHES)
        self._responses: Counter[tuple[str, int]] = Counter()
        self._figures: Callable[[], Iterable[Sample]] = lambda: ()
        self._exposition = Exposition(self._samples, self._histograms)

    def watch(self, figures: Callable[[], Iterable[Sample]]) -> None:
        """Have further figures read whenever somebody asks."""
        self._figures = figures

    def answered(self, wait_seconds: float, execution_seconds: float, total_seconds: float) -> None:
        """A request was answered by a worker."""
        self._queue_wait.add(max(0.0, wait_seconds))
        self._execution.add(max(0.0, execution_seconds))
        self._total.add(max(0.0, total_seconds))

    def dispatched(self, size: int) -> None:
        """A batch went to a worker."""
        self._batches.add(size)

    def responded(self, route: str, status: int) -> None:
        """An HTTP answer has gone out."""
        self._responses[route, status] += 1

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return self._exposition.text()

    def _samples(self) -> Iterator[Sample]:
        for (route, status), count in self._responses.items():
            yield meters.HTTP_RESPONSES(count, route, status)
        yield from self._figures()

    def _histograms(self) -> Iterator[tuple[Definition, list[tuple[str, float]], float]]:
        fed = {
            meters.QUEUE_WAIT: self._queue_wait,
            meters.EXECUTION: self._execution,
            meters.TOTAL: self._total,
            meters.BATCH_SIZE: self._batches,
        }
        for definition, buckets in fed.items():
            yield definition, buckets.cumulative(), buckets.total
