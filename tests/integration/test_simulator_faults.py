# SPDX-License-Identifier: Apache-2.0
import os
import signal
from pathlib import Path

import pytest

from tests.integration.simulation import LOST, XID_EVENT, Node, attached, error
from tests.waiting import wait_until

GPU, NEIGHBOUR = "gpu:0", "gpu:1"


def test_a_lost_card_is_lost_for_every_call_and_comes_back_as_a_new_one(simulated: Node) -> None:
    nvml = simulated.caller()
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    assert "error" not in str(nvml("nvmlDeviceGetName", NEIGHBOUR))
    attachment = attached(simulated)
    simulated.do("fault", "--gpu", "0", "lost")
    assert attachment.is_at_end()
    for function in ("nvmlDeviceGetName", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo"):
        assert nvml(function, GPU) == LOST
    assert nvml("nvmlDeviceGetHandleByIndex", 0) == LOST
    assert nvml("nvmlDeviceGetCount") == 2
    assert nvml("nvmlDeviceGetTemperature", NEIGHBOUR, 0) > 20
    simulated.do("clear", "--gpu", "0")
    assert nvml("nvmlDeviceGetName", GPU) == LOST, "an old handle must not work again"
    nvml("forget")
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 300_000
    attachment.close()


def test_an_unreadable_sensor_leaves_the_rest_readable(simulated: Node) -> None:
    nvml = simulated.caller()
    simulated.do("fault", "--gpu", "0", "sensor-error")
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) == error("Unknown")
    assert nvml("nvmlDeviceGetTemperatureV", GPU, 0) == error("Unknown")
    assert nvml("fields", GPU, 82)[0]["return"] == 999
    assert nvml("nvmlDeviceGetPowerUsage", GPU) > 0
    simulated.do("clear")
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) > 20


def test_a_hanging_call_sleeps_uninterruptibly_and_its_neighbour_goes_on(simulated: Node) -> None:
    stuck, other = simulated.caller(), simulated.caller()
    for caller in (stuck, other):
        assert caller("nvmlDeviceGetTemperature", GPU, 0) > 20
    assert "uninterruptibly" in simulated.sim("fault", "--gpu", "0", "hang").stderr
    stuck.send("nvmlDeviceGetTemperature", GPU, 0)
    wait_until(lambda: stuck.state() == "D")
    os.kill(stuck.pid, signal.SIGKILL)
    assert other("nvmlDeviceGetTemperature", NEIGHBOUR, 0) > 20
    assert stuck.state() == "D", "no signal may end it"
    assert simulated.do("show")[0]["faults"] == ["hang"]
    other.send("nvmlDeviceGetTemperature", GPU, 0)
    wait_until(lambda: other.state() == "D")
    simulated.do("clear")
    assert other.receive() > 20
    wait_until(lambda: stuck.state() == "Z")
    assert {path.name for path in simulated.directory.iterdir()} == {
        *("attach.sock", "control.sock", "state"),
        *(f"card-{card['uuid']}" for card in simulated.do("show")),
    }


@pytest.mark.parametrize(
    ("fault", "answers"),
    [
        ("no-permission", ("NoPermission", "NoPermission", "NoPermission")),
        ("no-power-limit", ("NotSupported", None, None)),
        ("no-memory-lock", (None, None, "NotSupported")),
    ],
)
def test_setters_are_refused_as_the_fault_says(
    simulated: Node, fault: str, answers: tuple[str | None, ...]
) -> None:
    nvml = simulated.caller()
    requests = (
        ("nvmlDeviceSetPowerManagementLimit", 250_000),
        ("nvmlDeviceSetGpuLockedClocks", 210, 900),
        ("nvmlDeviceSetMemoryLockedClocks", 1512, 1512),
    )
    simulated.do("fault", "--gpu", "0", fault)
    for (function, *arguments), answer in zip(requests, answers, strict=True):
        assert nvml(function, GPU, *arguments) == (error(answer) if answer else None)
        assert nvml(function, NEIGHBOUR, *arguments) is None
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) in (250_000, 300_000)


def test_somebody_else_may_set_the_limit(simulated: Node) -> None:
    nvml = simulated.caller()
    simulated.do("fault", "--gpu", "0", "external-limit=250")
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 250_000
    refused = simulated.sim("fault", "--gpu", "0", "external-limit=20")
    assert refused.returncode == 1
    assert "150 to 300 W" in refused.stderr
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 250_000


def test_an_xid_wakes_those_who_wait_for_it_on_that_card(simulated: Node) -> None:
    waiting, other = simulated.caller(), simulated.caller()
    simulated.do("fault", "--gpu", "0", "xid=31")  # before the registration: not delivered
    waiting.send("wait_for_event", GPU, XID_EVENT, 20_000)
    other.send("wait_for_event", NEIGHBOUR, XID_EVENT, 1_000)
    assert waiting.receive() == other.receive() == "registered"
    simulated.do("fault", "--gpu", "0", "xid=79")
    assert waiting.receive() == {"type": XID_EVENT, "data": 79, "instance": 0xFFFFFFFF}
    assert other.receive() == error("Timeout")
    assert waiting("fields", GPU, 230)[0]["unsigned"] == 2  # reboot
    assert waiting("fields", NEIGHBOUR, 230)[0]["unsigned"] == 0


def test_waiting_for_events_ends_when_the_card_is_lost(simulated: Node) -> None:
    nvml = simulated.caller()
    nvml.send("wait_for_event", GPU, XID_EVENT, 20_000)
    assert nvml.receive() == "registered"
    simulated.do("fault", "--gpu", "0", "lost")
    assert nvml.receive() == LOST


def test_an_event_type_that_the_card_lacks_is_refused(simulated: Node) -> None:
    nvml = simulated.caller()
    assert nvml("wait_for_event", GPU, 0x8000, 10) == error("NotSupported")
    assert nvml("wait_for_event", GPU, 1 << 40, 10) == error("InvalidArgument")


def test_reloading_the_driver_takes_settings_contexts_and_handles(simulated: Node) -> None:
    nvml = simulated.caller()
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    assert nvml("nvmlDeviceSetGpuLockedClocks", GPU, 210, 900) is None
    attachment = attached(simulated)
    (card, _) = simulated.do("reload-driver")
    assert (card["power_limit_watts"], card["sm_lock_mhz"]) == (300, None)
    assert attachment.is_at_end()
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == LOST
    nvml("forget")
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 300_000
    attachment.close()


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (("load", "--gpu", "7", "--fraction", "1"), 1, "there are 0 to 1"),
        (("load", "--gpu", "-1", "--fraction", "1"), 1, "gpu"),
        (("load", "--gpu", "0", "--fraction", "1.5"), 1, "fraction"),
        (("load", "--gpu", "0"), 2, "--fraction"),
        (("set", "--gpu", "0"), 1, "ambient"),
        (("set", "--gpu", "0", "--ambient", "nan"), 1, "ambient_celsius"),
        (("fault", "--gpu", "0", "tired"), 2, "sensor-error"),
        (("fault", "--gpu", "0", "xid"), 2, "needs a value"),
        (("fault", "--gpu", "0", "xid=many"), 2, "many"),
        (("fault", "--gpu", "0", "xid=1.5"), 1, "whole number"),
        (("fault", "--gpu", "0", "lost=3"), 2, "takes no value"),
        ((), 2, "command"),
    ],
)
def test_bad_use_is_explained_and_changes_nothing(
    simulated: Node, arguments: tuple[str, ...], status: int, named: str
) -> None:
    done = simulated.sim(*arguments)
    assert done.returncode == status
    assert named in done.stderr
    card = simulated.do("show")[0]
    assert (card["load"], card["ambient_celsius"], card["faults"]) == (0, 24, [])


def test_a_simulator_that_does_not_run_is_said_so(tmp_path: Path, library: Path) -> None:
    node = Node(tmp_path, library, tmp_path / "none")
    done = node.sim("show")
    assert done.returncode == 3
    assert "is gpuwarden-sim.service running?" in done.stderr
