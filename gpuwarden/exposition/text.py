# SPDX-License-Identifier: Apache-2.0
"""Samples as the text that a Prometheus server reads."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gpuwarden.exposition.definition import Definition, Kind, Sample

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

_FAMILIES = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily}


class Exposition(Collector):
    """What is asked for its samples whenever somebody reads.

    :param samples: counters and gauges.
    :param histograms: by definition, the buckets (bound as text, how many values are not over it;
        ``+Inf`` last) and the sum of all values.
    """

    def __init__(
        self,
        samples: Callable[[], Iterable[Sample]],
        histograms: Callable[
            [], Iterable[tuple[Definition, list[tuple[str, float]], float]]
        ] = lambda: (),
    ) -> None:
        self._samples, self._histograms = samples, histograms
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """All of it, as it is now."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For the client library: the metrics, each once with all its samples."""
        for definition, buckets, total in self._histograms():
            yield HistogramMetricFamily(
                definition.name, definition.meaning, buckets=buckets, sum_value=total
            )
        found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in self._samples():
            of = sample.definition
            if of.name not in found:
                found[of.name] = _FAMILIES[of.kind](of.name, of.meaning, labels=of.labels)
            found[of.name].add_metric(sample.labels, sample.value)
        yield from found.values()
