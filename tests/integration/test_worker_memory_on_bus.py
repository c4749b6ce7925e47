# SPDX-License-Identifier: Apache-2.0
"""A real worker's memory, through the real front door and supervisor, as an operator reads it."""

import json
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.cli import memory, workers
from gpuwarden.cli.known import Known
from gpuwarden.control.states import GuardData
from gpuwarden.names import BUS_NAME, ROOT_OBJECT, worker_object, worker_unit
from tests.integration.bus_peers import guarded
from tests.integration.private_bus import ROOT, private_bus, shipped_policy
from tests.integration.real_worker import real_worker
from tests.integration.supervised_node import supervised_at
from tests.integration.systemd_peer import POLICY
from tests.integration.test_worker_memory import OFTEN, body


async def test_what_a_worker_says_of_its_memory_is_on_the_bus_and_in_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        private_bus([shipped_policy(), POLICY]) as bus,
        supervised_at(bus.address, tmp_path, monkeypatch) as node,
        guarded(bus) as served,
        real_worker(
            node.gateway, engine="model_classes:Hoarding", options=OFTEN, max_batch=4
        ) as worker,
    ):

        def publish(data: GuardData) -> None:
            node.published.append(data)
            served.publish(data)

        unit = node.systemd.units[worker_unit(0)]
        unit.active_state, unit.main_pid = "active", worker.pid
        node.supervisor.publish = publish
        await node.open_up()
        assert (await node.gateway.post(body(takes=700, leaves=100))).status == 200
        data = await node.until(lambda data: data.workers[0].vram_reserved_bytes == 100)
        for name, printed in (
            ("VramReservedBytes", "t 100"),
            ("VramAllocatedBytes", "t 0"),
            ("VramFragmentation", "d 1"),
        ):
            interface = f"{BUS_NAME}.Worker"
            status, output = await bus.busctl(
                ROOT, "get-property", BUS_NAME, worker_object(0), interface, name
            )
            assert (status, output.strip()) == (0, printed)
        status, output = await bus.busctl(
            ROOT, "--json=short", "call", BUS_NAME, ROOT_OBJECT, f"{BUS_NAME}.Manager", "GetStatus"
        )
        told = json.loads(json.loads(output)["data"][0])["workers"][0]
        assert (told["vram"]["peak_bytes"], told["vram"]["num_device_alloc"]) == (700, 1)

        monkeypatch.setattr(memory, "get_status_or_last", lambda: Known(data))
        file = node.gateway.state_path.with_name("memory.json")
        monkeypatch.setattr(names, "GATEWAY_MEMORY_FILE", file)
        assert memory.show(None, as_json=True) == 0
        (first, second) = json.loads(capsys.readouterr().out)
        assert first["vram"]["limit_bytes"] == 1000
        assert first["history"]["reserved_bytes"][0] == 0
        assert second["history"] is None
        assert memory.show(workers.TERMINAL, as_json=False) == 0
        assert "worker 0 on GPU 0" in capsys.readouterr().out
        assert memory.show(tmp_path / "memory.svg", as_json=False) == 0
        assert (tmp_path / "memory.svg").read_text().startswith("<?xml")
