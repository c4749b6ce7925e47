"""``/metrics``: what a Prometheus server reads. No text of any request is in a name or a label."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gpuwarden.gateway.histogram import Buckets

PREFIX = "gpuwarden_gateway"
SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)

Sample = tuple[str, str, dict[str, str], float]  # name, its help, labels, value
Samples = Callable[[], Iterable[Sample]]


class Metrics(Collector):
    """The histograms, fed as things happen, and figures that are read when somebody asks."""

    def __init__(self) -> None:
        self._queue_wait, self._execution, self._total = (Buckets(SECONDS) for _ in range(3))
        self._batches = Buckets(BATCHES)
        self._responses: Counter[tuple[str, int]] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def watch(self, counters: Samples, gauges: Samples) -> None:
        """Have further figures read whenever somebody asks."""
        self._registry.register(_Figures(counters, gauges))

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
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What was fed, as it is now."""
        of_answers = "Time of answered requests"
        yield _histogram(
            "queue_wait_seconds",
            f"{of_answers} from the body's end to the worker.",
            self._queue_wait,
        )
        yield _histogram(
            "execution_seconds", f"{of_answers} from the worker to its answer.", self._execution
        )
        yield _histogram(
            "total_seconds", f"{of_answers} from the headers to the answer.", self._total
        )
        yield _histogram("batch_size", "Requests handed to a worker together.", self._batches)
        responses = CounterMetricFamily(
            f"{PREFIX}_http_responses",
            "HTTP answers by route and status.",
            labels=("route", "status"),
        )
        for (route, status), count in self._responses.items():
            responses.add_metric((route, str(status)), count)
        yield responses


def _histogram(name: str, meaning: str, buckets: Buckets) -> Metric:
    return HistogramMetricFamily(
        f"{PREFIX}_{name}", meaning, buckets=buckets.cumulative(), sum_value=buckets.total
    )


class _Figures(Collector):
    """Counters and gauges that live elsewhere."""

    def __init__(self, counters: Samples, gauges: Samples) -> None:
        self._sources = ((CounterMetricFamily, counters), (GaugeMetricFamily, gauges))

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        for family, samples in self._sources:
            found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
            for name, meaning, labels, value in samples():
                if name not in found:
                    found[name] = family(f"{PREFIX}_{name}", meaning, labels=list(labels))
                found[name].add_metric(list(labels.values()), value)
            yield from found.values()
