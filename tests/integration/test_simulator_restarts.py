# SPDX-License-Identifier: Apache-2.0
import signal

import pytest

from tests.integration.simulation import LOST, Node, error
from tests.waiting import wait_until

GPU, NEIGHBOUR = "gpu:0", "gpu:1"


def test_without_loop_mounts_a_hanging_call_still_blocks(
    own_simulation: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_simulation.stop()
    monkeypatch.setenv("PATH", "/nonexistent")
    own_simulation.start()
    monkeypatch.undo()
    caller = own_simulation.caller()
    assert caller("nvmlDeviceGetTemperature", GPU, 0) > 20
    assert "no frozen file system here" in own_simulation.sim("fault", "--gpu", "0", "hang").stderr
    caller.send("nvmlDeviceGetTemperature", GPU, 0)
    wait_until(lambda: caller.state() == "S")
    assert own_simulation.do("show")[0]["faults"] == ["hang"]
    own_simulation.do("clear")
    assert caller.receive() > 20


def test_a_daemon_killed_while_a_card_hangs_can_still_mend_it(own_simulation: Node) -> None:
    caller = own_simulation.caller()
    assert caller("nvmlDeviceGetTemperature", GPU, 0) > 20
    own_simulation.do("fault", "--gpu", "0", "hang")
    caller.send("nvmlDeviceGetTemperature", GPU, 0)
    wait_until(lambda: caller.state() == "D")
    own_simulation.stop(signal.SIGKILL)
    own_simulation.start()
    assert own_simulation.do("show")[0]["faults"] == ["hang"]
    own_simulation.do("clear")
    assert caller.receive() > 20


def test_a_killed_daemon_is_no_unloaded_driver(own_simulation: Node) -> None:
    nvml = own_simulation.caller()
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    before = nvml("nvmlDeviceGetTotalEnergyConsumption", GPU)
    own_simulation.stop(signal.SIGKILL)
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 200_000
    own_simulation.start()
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 200_000
    assert nvml("nvmlDeviceGetTotalEnergyConsumption", GPU) >= before


def test_a_stopped_simulator_is_an_unloaded_driver(own_simulation: Node) -> None:
    nvml = own_simulation.caller()
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    own_simulation.stop()
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == LOST
    nvml("nvmlShutdown")
    assert nvml("nvmlInit") == error("DriverNotLoaded")
    own_simulation.start()
    assert nvml("nvmlInit") is None
    nvml("forget")
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 300_000


def test_readers_are_told_when_other_cards_take_the_place(own_simulation: Node) -> None:
    nvml = own_simulation.caller()
    assert nvml("nvmlDeviceGetName", GPU) == "NVIDIA A100 80GB PCIe"
    own_simulation.stop(signal.SIGKILL)
    own_simulation.cards.write_text('{"cards": [{"preset": "T4", "pci_address": "0000:41:00.0"}]}')
    own_simulation.start()
    assert nvml("nvmlDeviceGetName", GPU) == LOST
    nvml("nvmlShutdown")
    nvml("nvmlInit")
    nvml("forget")
    assert nvml("nvmlDeviceGetName", GPU) == "Tesla T4"


def test_wrong_cards_stop_the_start_with_their_file_and_field(own_simulation: Node) -> None:
    own_simulation.stop()
    right = own_simulation.cards.read_text()
    own_simulation.cards.write_text(right.replace("A100", "A999"))
    with pytest.raises(AssertionError, match=r"cards\.json: cards\.0\.preset.*A999"):
        own_simulation.start()
    own_simulation.cards.write_text(right)
    own_simulation.start()
