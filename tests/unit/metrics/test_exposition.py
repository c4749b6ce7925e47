# SPDX-License-Identifier: Apache-2.0
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpuwarden.exposition.definition import Definitions
from gpuwarden.exposition.text import Exposition

DEFINITIONS = Definitions("t")
HEAT = DEFINITIONS.gauge("heat_celsius", "How hot it is.", "gpu", "name")
STARTS = DEFINITIONS.counter("starts", "How often it started.")
TIMES = DEFINITIONS.histogram("wait_seconds", "How long it took.")


def test_a_sample_has_the_labels_that_its_definition_has() -> None:
    with pytest.raises(ValueError, match=r"t_heat_celsius has the labels gpu, name, not \(3,\)"):
        HEAT(41.0, 3)


def test_a_name_is_defined_once() -> None:
    with pytest.raises(ValueError, match="t_starts_total is defined twice"):
        DEFINITIONS.counter("starts", "Again.")


def test_what_is_unknown_is_left_out() -> None:
    assert list(HEAT.known(None, 0, "x")) == []


def test_the_text_says_what_was_sampled_whatever_is_in_a_label() -> None:
    name = 'A "quoted"\nname \\ ü'
    text = Exposition(
        lambda: [HEAT(41.5, 0, name), STARTS(3), HEAT(40, 1, "b")],
        lambda: [(TIMES, [("1.0", 2.0), ("+Inf", 3.0)], 4.5)],
    ).text()
    families = {f.name: f for f in text_string_to_metric_families(text.decode())}
    assert {name: family.type for name, family in families.items()} == {
        "t_wait_seconds": "histogram",
        "t_heat_celsius": "gauge",
        "t_starts": "counter",
    }
    heat = families["t_heat_celsius"]
    assert heat.documentation == "How hot it is."
    assert [(s.labels, s.value) for s in heat.samples] == [
        ({"gpu": "0", "name": name}, 41.5),
        ({"gpu": "1", "name": "b"}, 40.0),
    ]
    assert text.count(b"# HELP t_heat_celsius") == 1
    assert [s.value for s in families["t_wait_seconds"].samples] == [2.0, 3.0, 3.0, 4.5]
