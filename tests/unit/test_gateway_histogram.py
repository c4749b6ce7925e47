# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from gpuwarden.gateway.histogram import Buckets
from gpuwarden.gateway.metrics import SECONDS

VALUES = st.lists(st.one_of(st.sampled_from(SECONDS), st.floats(0, 100)))


@given(VALUES)
def test_it_counts_as_the_prometheus_client_does(values: list[float]) -> None:
    registry = CollectorRegistry()
    theirs = Histogram("x", "y", buckets=SECONDS, registry=registry)
    ours = Buckets(SECONDS)
    for value in values:
        theirs.observe(value)
        ours.add(value)
    [family] = registry.collect()
    buckets = [(s.labels["le"], s.value) for s in family.samples if s.name == "x_bucket"]
    assert ours.cumulative() == buckets
    assert [s.value for s in family.samples if s.name == "x_sum"] == [ours.total]
