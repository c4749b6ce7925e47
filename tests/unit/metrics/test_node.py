# SPDX-License-Identifier: Apache-2.0
"""What the node's metrics say of published states, and what they leave out."""

import pytest

from gpuwarden import __version__
from gpuwarden.control.states import ScanData
from gpuwarden.exposition.text import Exposition
from gpuwarden.metrics.meters import METERS
from gpuwarden.metrics.node import SLOWING, Component, Heard, Published, samples
from gpuwarden.nvml.vocabulary import clock_event_reasons
from gpuwarden.values import ThermalState
from tests.promtool import check_metrics
from tests.unit.cli.samples import gpu, since
from tests.unit.metrics.states import published


def told(state: Published) -> dict[str, float]:
    """By name and labels, as Prometheus writes them."""
    found = {}
    for sample in samples(state):
        pairs = zip(sample.definition.labels, sample.labels, strict=True)
        labels = ",".join(f"{name}={value}" for name, value in pairs)
        name = sample.definition.name.removeprefix("gpuwarden_")
        key = f"{name}{{{labels}}}" if labels else name
        assert key not in found, "each series once"
        found[key] = sample.value
    return found


@pytest.mark.parametrize(
    ("series", "value"),
    [
        (f"build_info{{version={__version__}}}", 1),
        ("gpu_info{gpu=0,uuid=GPU-0,name=NVIDIA H200}", 1),
        ("gpu_present{gpu=1}", 0),
        ("gpu_temperature_celsius{gpu=0}", 41.4),
        ("gpu_power_watts{gpu=0}", 122.4),
        ("gpu_power_limit_watts{gpu=0}", 700),
        ("gpu_utilization_ratio{gpu=0}", 0.25),
        ("gpu_vram_used_bytes{gpu=0}", 2**30),
        ("gpu_sm_clock_lock_hertz{gpu=0}", 1.2e9),
        ("gpu_throttle_seconds_total{gpu=0,reason=software-power-cap}", 12.5),
        ("gpu_throttle_seconds_total{gpu=0,reason=hardware-thermal-slowdown}", 0),
        ("gpu_throttled{gpu=0,reason=software-power-cap}", 1),
        ("gpu_throttled{gpu=0,reason=hardware-thermal-slowdown}", 0),
        ("gpu_recovery_action{gpu=0,action=gpu-reset}", 1),
        ("gpu_xid_timestamp_seconds{gpu=0,xid=79}", since(60) / 1e6),
        ("thermal_state{gpu=0,state=alert}", 1),
        ("thermal_state{gpu=0,state=normal}", 0),
        ("thermal_state_seconds_total{gpu=0,state=alert}", 4),
        ("thermal_state_seconds_total{gpu=0,state=critical}", 0),
        ("thermal_throttles_total{gpu=0}", 2),
        ("thermal_dispatch_duty_ratio{gpu=0}", 0.5),
        ("thermal_admission_paused{gpu=0}", 1),
        ("thermal_stop_requested{gpu=0}", 1),
        ("thermal_actuator_available{gpu=0,actuator=power-limit}", 1),
        ("thermal_actuator_available{gpu=0,actuator=memory-clock}", 0),
        ("worker_state{worker=0,gpu=0,state=stopped}", 1),
        ("worker_state{worker=1,gpu=1,state=ready}", 1),
        ("worker_held{worker=0,gpu=0,reason=heat}", 1),
        ("worker_restarts_total{worker=0,gpu=0}", 3),
        ("worker_state_start_time_seconds{worker=0,gpu=0}", since(90) / 1e6),
        ("worker_vram_fragmentation_ratio{worker=0,gpu=0}", 0.25),
        ("orphans{gpu=0,class=foreign}", 2),
        ("orphans{gpu=0,class=ours-dead}", 0),
        ("orphans_vram_bytes{gpu=0,class=foreign}", 3 * 2**20),
        ("scans_total{gpu=0}", 7),
        ("scan_unexplained_bytes{gpu=0}", 5),
        ("service_state{state=running}", 1),
        ("service_problems", 1),
        ("tuning_fault", 1),
        ("component_stale{component=guard,gpu=}", 0),
        ("component_age_seconds{component=thermal,gpu=0}", 0.5),
    ],
)
def test_what_is_published_is_told(series: str, value: float) -> None:
    assert told(published())[series] == value


def test_every_metric_is_told_of_a_node_that_knows_all() -> None:
    assert {s.definition for s in samples(published())} == set(METERS)


def test_prometheus_finds_nothing_to_say_of_the_metrics() -> None:
    check_metrics(Exposition(lambda: samples(published())).text())


def test_what_is_unknown_of_a_blind_card_is_left_out() -> None:
    blind = gpu(
        0,
        state=ThermalState.BLIND,
        temperature_celsius=None,
        memory_temperature_celsius=None,
        power_watts=None,
        power_limit_watts=None,
        utilization=None,
        vram_used_bytes=None,
        vram_total_bytes=None,
        throttle_seconds={"software-power-cap": 1.0},
    )
    found = told(published(thermal={0: blind}))
    assert found["thermal_state{gpu=0,state=blind}"] == 1
    left = [name for name in found if name.startswith("gpu_")]
    known = ("gpu_info", "gpu_present", "gpu_throttle_seconds", "gpu_recovery_action")
    assert all(name.startswith(known) for name in left), left


def test_of_a_silent_supervisor_there_is_its_silence_alone() -> None:
    silent = {Component("guard"): Heard(4.0, is_fresh=False)}
    found = told(published(guard=None, heard=silent))
    assert found["component_stale{component=guard,gpu=}"] == 1
    assert found["component_age_seconds{component=guard,gpu=}"] == 4
    assert not [n for n in found if n.startswith(("worker_", "workers_ready", "service_", "orph"))]
    assert found["gpu_temperature_celsius{gpu=0}"] == 41.4  # whoever else is dead


def test_of_a_component_that_never_spoke_there_is_no_age() -> None:
    found = told(Published({Component("gateway"): Heard(None, is_fresh=False)}))
    assert found == {
        f"build_info{{version={__version__}}}": 1,
        "component_stale{component=gateway,gpu=}": 1,
    }


def test_who_holds_a_card_is_left_out_where_it_is_not_certain() -> None:
    found = told(published())
    assert not [name for name in found if name.startswith("orphans{gpu=1")]
    blind = ScanData(gpu_index=0, gpu_uuid="GPU-0", state="blind", problem="no driver", scans=7)
    found = told(published(scans={0: blind}))
    assert found["scan_incomplete{gpu=0}"] == 1
    assert "scan_holders{gpu=0}" not in found


def test_the_reasons_that_slow_a_card_are_the_drivers() -> None:
    assert set(SLOWING) < set(clock_event_reasons(0x7FF))


def test_no_metric_of_the_node_could_tell_of_a_patient() -> None:
    labels = {label for meter in METERS for label in meter.labels}
    assert labels == {
        *("component", "gpu", "version", "state", "uuid", "name", "reason", "action", "xid"),
        *("actuator", "worker", "class"),
    }
