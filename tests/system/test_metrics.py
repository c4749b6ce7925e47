# SPDX-License-Identifier: Apache-2.0
"""The node's metrics in their real unit: started by a scrape, whoever else is dead."""

from tests.node.vm import Node
from tests.system.service import main_pid, wait_for

METRICS = "curl --silent --show-error --max-time 90 http://127.0.0.1:9835/metrics"
SILENT = r'^gpuwarden_component_stale{component="guard",gpu=""} 1\.0$'


def test_metrics_outlive_the_supervisor_and_their_own_death_and_end_with_their_socket(
    node: Node,
) -> None:
    assert main_pid(node, "medgemma-metrics") == 0
    said = node.run(METRICS).text
    assert "gpuwarden_gpu_temperature_celsius" in said
    assert 'gpuwarden_component_stale{component="guard",gpu=""} 0.0' in said
    capabilities = f"grep CapEff /proc/{main_pid(node, 'medgemma-metrics')}/status"
    assert node.run(capabilities).text.split()[1].strip("0") == ""

    node.run("systemctl kill --signal=KILL medgemma-metrics.service")
    assert "gpuwarden_gpu_temperature_celsius" in node.run(METRICS).text

    node.run("systemctl stop medgemma-guard", timeout_seconds=120)
    wait_for(node, f"{METRICS} | grep -q '{SILENT}'")
    said = node.run(METRICS).text
    assert "gpuwarden_gpu_temperature_celsius" in said  # the thermal guards go on
    assert "gpuwarden_worker_state" not in said

    node.run("systemctl stop medgemma-metrics.socket medgemma-metrics.service")
    assert node.run(METRICS, check=False).status == 7  # curl(1): failed to connect
