# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_next.aio import MessageBus  # type: ignore[attr-defined]  # re-exported without __all__
from dbus_next.constants import BusType, MessageType
from dbus_next.message import Message

from gpuwarden import names
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import Card, PlanData
from tests.integration.cli.proof_bench import DOWN, Bench
from tests.integration.simulation import Caller, Node

BUS_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow receive_sender="*"/>
    <allow send_type="method_return"/>
    <allow send_type="error"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <{access} send_destination="{name}"/>
  </policy>
</busconfig>
"""

Answer = Callable[[Message], Message | None]


@contextlib.contextmanager
def private_bus(folder: Path, access: str) -> Any:
    """A system-type bus of our own; ``access`` to our name is "allow" or "deny"."""
    address = folder / "bus"
    configuration = folder / "bus.conf"
    configuration.write_text(
        BUS_CONFIGURATION.format(socket=address, access=access, name=names.BUS_NAME)
    )
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
    )
    assert daemon.stdout is not None
    daemon.stdout.readline()  # printed once it listens
    try:
        yield f"unix:path={address}"
    finally:
        daemon.terminate()
        daemon.wait(10)
        daemon.stdout.close()


@pytest.fixture(params=["allow"])
def bus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The system bus of this test, for us and for what we start."""
    with private_bus(tmp_path, request.param) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address


@contextlib.asynccontextmanager
async def service_answering(answer: Answer) -> AsyncIterator[None]:
    """Owns our name on the bus and answers every call to our interfaces."""

    def handle(message: Message) -> Message | bool:
        ours = (message.interface or "").startswith(names.BUS_NAME)
        if message.message_type is not MessageType.METHOD_CALL or not ours:
            return False
        reply = answer(message)
        return True if reply is None else reply

    connection: Any = await MessageBus(bus_type=BusType.SYSTEM).connect()
    connection.add_message_handler(handle)
    await connection.request_name(names.BUS_NAME)
    try:
        yield
    finally:
        connection.disconnect()
        await asyncio.wait_for(connection.wait_for_disconnect(), 30)


@pytest.fixture
def bench(tmp_path: Path, simulated: Node) -> Iterator[Bench]:
    bench = Bench(tmp_path, simulated)
    for folder in ("run", "run/thermal", "var", "bin", "conf.d"):
        (tmp_path / folder).mkdir()
    cards = [
        Card(
            index=index,
            uuid=str(card["uuid"]),
            name="NVIDIA A100",
            pci_address=f"0000:{0x41 + index:02x}:00.0",
            minor=index,
            numa_node=-1,
            present=index == 0,
        )
        for index, card in enumerate(simulated.do("show"))
    ]
    plan = PlanData(
        driver_version="1", simulated=True, cards=cards, workers=[], housekeeping_cpus="0"
    )
    SnapshotWriter(tmp_path / "plan.json", "placement").publish(plan)
    bench.environment = os.environ | {
        "GPUWARDEN_NVML_LIBRARY": str(simulated.library),
        "GPUWARDEN_SIM_STATE": str(simulated.state),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }
    bench.systemctl(DOWN)
    yield bench


@pytest.fixture
def nvml(simulated: Node) -> Caller:
    return simulated.caller()
