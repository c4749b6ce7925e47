# SPDX-License-Identifier: Apache-2.0
"""Every alert fires when it is to and is quiet when not, by Prometheus' own reckoning."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.exposition.definition import Definition, Kind
from gpuwarden.gateway import meters as of_gateway
from gpuwarden.metrics import meters as of_node
from tests.promtool import promtool

PACKAGING = Path(__file__).parents[3] / "packaging"
RULES = PACKAGING / "prometheus" / "gpuwarden.rules.yml"
DASHBOARD = PACKAGING / "grafana" / "gpuwarden.json"
ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)
HISTOGRAM_ENDS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True)
class Case:
    """What a rule is shown, minute by minute; it is looked at after ``minutes``.

    ``AxB`` is the value A for B minutes, ``A+BxC`` grows by B each minute.
    """

    fires: dict[str, str]
    quiet: dict[str, str]
    minutes: int = 35


def constant(series: str, firing: object, quiet: object, minutes: int = 35) -> Case:
    return Case({series: f"{firing}x90"}, {series: f"{quiet}x90"}, minutes)


def brief(series: str) -> Case:
    """Fires if it lasts; not of what lasts a minute."""
    return Case({series: "1x90"}, {series: "0x34 1"})


def answers(late: str) -> dict[str, str]:
    bucket = "gpuwarden_gateway_total_seconds_bucket"
    return {f'{bucket}{{le="10"}}': late, f'{bucket}{{le="30"}}': "0+10x90"} | {
        f'{bucket}{{le="+Inf"}}': "0+10x90"
    }


FAILED = 'gpuwarden_gateway_requests_total{outcome="failed"}'
COMPLETED = 'gpuwarden_gateway_requests_total{outcome="completed"}'
CASES = {
    "GpuwardenUnreachable": constant('up{job="gpuwarden"}', 0, 1),
    "GpuwardenComponentSilent": brief('gpuwarden_component_stale{component="guard",gpu=""}'),
    "GpuwardenDegraded": brief('gpuwarden_service_state{state="degraded"}'),
    "GpuwardenHostNotTuned": brief("gpuwarden_tuning_fault"),
    "GpuwardenCardLost": brief('gpuwarden_thermal_state{gpu="0",state="lost"}'),
    "GpuwardenCardBlind": brief('gpuwarden_thermal_state{gpu="0",state="blind"}'),
    "GpuwardenCardCritical": constant('gpuwarden_thermal_state{gpu="0",state="critical"}', 1, 0),
    "GpuwardenCardHot": brief('gpuwarden_thermal_state{gpu="0",state="alert"}'),
    "GpuwardenCardSlowsItself": Case(
        {'gpuwarden_gpu_throttle_seconds_total{reason="hardware-thermal-slowdown"}': "0+5x90"},
        {
            'gpuwarden_gpu_throttle_seconds_total{reason="hardware-thermal-slowdown"}': "0+1x90",
            'gpuwarden_gpu_throttle_seconds_total{reason="software-power-cap"}': "0+60x90",
        },
    ),
    "GpuwardenCardCannotBeCooled": Case(
        {'gpuwarden_thermal_actuator_available{gpu="0",actuator="power-limit"}': "0x90"},
        {
            'gpuwarden_thermal_actuator_available{gpu="0",actuator="power-limit"}': "0x90",
            'gpuwarden_thermal_actuator_available{gpu="0",actuator="sm-clock"}': "1x90",
        },
    ),
    "GpuwardenCardNeedsReset": Case(
        {'gpuwarden_gpu_recovery_action{action="gpu-reset"}': "1x90"},
        {
            'gpuwarden_gpu_recovery_action{gpu="0",action="none"}': "1x90",
            'gpuwarden_gpu_recovery_action{gpu="1",action="unknown"}': "1x90",
        },
    ),
    # Prometheus' tests begin in 1970: 1500 is ten minutes before the look.
    "GpuwardenXid": constant('gpuwarden_gpu_xid_timestamp_seconds{xid="79"}', 1500, 600),
    "GpuwardenNoWorkerReady": Case(
        {"gpuwarden_workers_ready": "0x90", "gpuwarden_workers_planned": "2x90"},
        {"gpuwarden_workers_ready": "0x90", "gpuwarden_workers_planned": "0x90"},
    ),
    "GpuwardenWorkerUnwell": brief('gpuwarden_worker_state{worker="0",state="ghost"}'),
    "GpuwardenWorkerRestarts": constant("gpuwarden_worker_restarts_total", "0+0.1", "0+0.01", 70),
    "GpuwardenVramFragmented": constant("gpuwarden_worker_vram_fragmentation_ratio", 0.4, 0.2),
    "GpuwardenOrphans": constant('gpuwarden_orphans{gpu="0",class="foreign"}', 1, 0),
    "GpuwardenQueueFull": Case(
        {"gpuwarden_gateway_queue_depth": "90x90", "gpuwarden_gateway_queue_limit": "100x90"},
        {"gpuwarden_gateway_queue_depth": "50x90", "gpuwarden_gateway_queue_limit": "100x90"},
    ),
    "GpuwardenRequestsFail": Case(
        {FAILED: "0+1x90", COMPLETED: "0+9x90"}, {FAILED: "0+1x90", COMPLETED: "0+99x90"}
    ),
    "GpuwardenAnswersSlow": Case(answers("0+1x90"), answers("0+10x90")),
    "GpuwardenRequestSetAside": constant("gpuwarden_gateway_set_aside", 1, 0),
    "GpuwardenJobsUnavailable": constant("gpuwarden_gateway_jobs_available", 0, 1),
}


def test_each_alert_has_its_case() -> None:
    assert sorted(CASES) == sorted(ALERTS)


def judged(name: str, series: dict[str, str], minutes: int, *, fires: bool) -> dict[str, Any]:
    expected = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "name": f"{name} {'fires' if fires else 'is quiet'}",
        "interval": "1m",
        "input_series": [{"series": s, "values": values} for s, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                "eval_time": f"{minutes}m",
                "exp_samples": expected,
            }
        ],
    }


def test_each_alert_fires_when_it_is_to_and_only_then(tmp_path: Path) -> None:
    tests = [
        judged(name, series, case.minutes, fires=fires)
        for name, case in CASES.items()
        for fires, series in ((True, case.fires), (False, case.quiet))
    ]
    file = tmp_path / "rules.test.yml"  # JSON is YAML, too
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    file.write_text(json.dumps(document))
    promtool("test", "rules", file)


def test_prometheus_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", RULES)


def test_each_alert_says_what_it_means_and_what_to_do() -> None:
    for block in re.split(r"^ +- alert: ", RULES.read_text(), flags=re.MULTILINE)[1:]:
        for key in ("summary", "meaning", "action"):
            assert re.search(rf'^ +{key}: "[^"]{{20,}}"$', block, re.MULTILINE), (key, block)
        assert re.search(r"severity: (warning|critical)", block), block


def series_of(definition: Definition) -> Iterator[str]:
    if definition.kind is Kind.HISTOGRAM:
        yield from (definition.name + end for end in HISTOGRAM_ENDS)
    else:
        yield definition.name


EXISTING = {s for each in (*of_node.METERS, *of_gateway.METERS) for s in series_of(each)}


def expressions(document: Any) -> Iterator[str]:
    """Everything that a dashboard asks Prometheus."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(document, list):
        for each in document:
            yield from expressions(each)


def test_every_metric_in_rules_and_dashboard_exists() -> None:
    asked = [
        *re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.MULTILINE),
        *expressions(json.loads(DASHBOARD.read_text())),
    ]
    named = {name for each in asked for name in re.findall(r"\bgpuwarden_\w+", each)}
    assert len(asked) > 40
    assert named <= EXISTING, named - EXISTING


def test_labels_that_rules_and_dashboard_choose_by_exist() -> None:
    labels = {f"{each.name}": set(each.labels) for each in (*of_node.METERS, *of_gateway.METERS)}
    always = {"job", "instance", "le"}
    asked = [
        *re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.MULTILINE),
        *expressions(json.loads(DASHBOARD.read_text())),
    ]
    for each in asked:
        for name, chosen in re.findall(r"\b(gpuwarden_\w+)\{([^}]*)\}", each):
            base = re.sub(r"_(bucket|sum|count)$", "", name) if name not in labels else name
            wanted = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", chosen))
            assert wanted <= labels[base] | always, each


def shown(definition: Definition) -> dict[str, str]:
    """What a node tells Prometheus of a metric in 90 minutes in which each has a value."""
    labels = "".join(f',{name}="0"' for name in definition.labels)
    if definition.kind is Kind.HISTOGRAM:
        buckets = {f'{definition.name}_bucket{{le="{le}"{labels}}}': "0+1x90" for le in (1, "+Inf")}
        return buckets | {
            f"{definition.name}{end}{{{labels[1:]}}}": "0+1x90" for end in ("_sum", "_count")
        }
    values = "0+1x90" if definition.kind is Kind.COUNTER else "1x90"
    return {f"{definition.name}{{{labels[1:]}}}": values}


def test_each_query_of_the_dashboard_is_prometheus_and_shows_what_a_node_tells(
    tmp_path: Path,
) -> None:
    variables = {"$instance": ".*", "$gpu": ".*", "$__rate_interval": "5m"}
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    assert len(queries) > 30
    for variable, value in variables.items():
        queries = [each.replace(variable, value) for each in queries]
    series = {
        name: values
        for definition in (*of_node.METERS, *of_gateway.METERS)
        for name, values in shown(definition).items()
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"count({query}) > bool 0",
                "eval_time": "60m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
            for query in queries
        ],
    }
    file = tmp_path / "dashboard.test.yml"
    file.write_text(json.dumps({"rule_files": [], "tests": [test]}))
    promtool("test", "rules", file)


def panels() -> list[dict[str, Any]]:
    document = json.loads(DASHBOARD.read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def test_the_dashboard_says_what_each_panel_shows_and_no_two_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels():
        assert panel["title"], panel["id"]
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_prometheus_can_read_what_a_panel_asks(panel: dict[str, Any], tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": each["expr"].replace("$__rate_interval", "5m")}
        for number, each in enumerate(panel["targets"])
    ]
    file = tmp_path / "panel.yml"
    file.write_text(json.dumps({"groups": [{"name": "panel", "rules": rules}]}))
    promtool("check", "rules", file)
