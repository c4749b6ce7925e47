import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.simulation import Attachment, Node, build_library, running_node, wait_until

GPU, NEIGHBOUR = "gpu:0", "gpu:1"
GIBIBYTE = 1024**3
XID_EVENT = 8


def error(name: str) -> dict[str, str]:
    return {"error": name}


LOST = error("GpuIsLost")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("shared") / "node"
    with running_node(directory, library, "A100", "A100") as running:
        yield running


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """A node that is mended after the test."""
    yield shared
    shared.do("clear")
    shared.do("reload-driver")
    for caller in shared.callers:
        caller.end()
    shared.callers.clear()


@pytest.fixture
def own_node(tmp_path: Path, library: Path) -> Iterator[Node]:
    """A node that the test may stop and kill."""
    with running_node(tmp_path / "node", library, "A100", "A100") as running:
        yield running


def uuid_of(node: Node, index: int = 0) -> str:
    return str(node.do("show")[index]["uuid"])


def attached(node: Node, vram_bytes: int = GIBIBYTE, load: float = 0.0) -> Attachment:
    attachment = node.attach()
    answer = attachment.say(uuid=uuid_of(node), vram_bytes=vram_bytes, load=load)
    assert answer == {"ok": True}
    return attachment


def test_a_lost_card_is_lost_for_every_call_and_comes_back_as_a_new_one(node: Node) -> None:
    nvml = node.caller()
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    assert "error" not in str(nvml("nvmlDeviceGetName", NEIGHBOUR))
    attachment = attached(node)
    node.do("fault", "--gpu", "0", "lost")
    assert attachment.is_at_end()
    for function in ("nvmlDeviceGetName", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo"):
        assert nvml(function, GPU) == LOST
    assert nvml("nvmlDeviceGetHandleByIndex", 0) == LOST
    assert nvml("nvmlDeviceGetCount") == 2
    assert nvml("nvmlDeviceGetTemperature", NEIGHBOUR, 0) > 20
    node.do("clear", "--gpu", "0")
    assert nvml("nvmlDeviceGetName", GPU) == LOST, "an old handle must not work again"
    nvml("forget")
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 300_000
    attachment.close()


def test_an_unreadable_sensor_leaves_the_rest_readable(node: Node) -> None:
    nvml = node.caller()
    node.do("fault", "--gpu", "0", "sensor-error")
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) == error("Unknown")
    assert nvml("nvmlDeviceGetTemperatureV", GPU, 0) == error("Unknown")
    assert nvml("fields", GPU, 82)[0]["return"] == 999
    assert nvml("nvmlDeviceGetPowerUsage", GPU) > 0
    node.do("clear")
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) > 20


def test_a_hanging_call_sleeps_uninterruptibly_and_its_neighbour_goes_on(node: Node) -> None:
    stuck, other = node.caller(), node.caller()
    for caller in (stuck, other):
        assert caller("nvmlDeviceGetTemperature", GPU, 0) > 20
    assert "uninterruptibly" in node.sim("fault", "--gpu", "0", "hang").stderr
    stuck.send("nvmlDeviceGetTemperature", GPU, 0)
    wait_until("state D", lambda: stuck.state() == "D")
    os.kill(stuck.pid, signal.SIGKILL)
    assert other("nvmlDeviceGetTemperature", NEIGHBOUR, 0) > 20
    assert stuck.state() == "D", "no signal may end it"
    assert node.do("show")[0]["faults"] == ["hang"]
    other.send("nvmlDeviceGetTemperature", GPU, 0)
    wait_until("state D", lambda: other.state() == "D")
    node.do("clear")
    assert other.receive() > 20
    wait_until("the killed process is gone", lambda: stuck.state() == "Z")
    assert sorted(path.name for path in node.directory.iterdir()) == [
        *("attach.sock", "control.sock", "state"),
    ]


def test_without_loop_mounts_a_hanging_call_still_blocks(
    own_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_node.stop()
    monkeypatch.setenv("PATH", "/nonexistent")
    own_node.start()
    monkeypatch.undo()
    caller = own_node.caller()
    assert caller("nvmlDeviceGetTemperature", GPU, 0) > 20
    assert "no frozen file system here" in own_node.sim("fault", "--gpu", "0", "hang").stderr
    caller.send("nvmlDeviceGetTemperature", GPU, 0)
    wait_until("it sleeps", lambda: caller.state() == "S")
    assert own_node.do("show")[0]["faults"] == ["hang"]
    own_node.do("clear")
    assert caller.receive() > 20


def test_a_daemon_killed_while_a_card_hangs_can_still_mend_it(own_node: Node) -> None:
    caller = own_node.caller()
    assert caller("nvmlDeviceGetTemperature", GPU, 0) > 20
    own_node.do("fault", "--gpu", "0", "hang")
    caller.send("nvmlDeviceGetTemperature", GPU, 0)
    wait_until("state D", lambda: caller.state() == "D")
    own_node.stop(signal.SIGKILL)
    own_node.start()
    assert own_node.do("show")[0]["faults"] == ["hang"]
    own_node.do("clear")
    assert caller.receive() > 20


@pytest.mark.parametrize(
    ("fault", "answers"),
    [
        ("no-permission", ("NoPermission", "NoPermission", "NoPermission")),
        ("no-power-limit", ("NotSupported", None, None)),
        ("no-memory-lock", (None, None, "NotSupported")),
    ],
)
def test_setters_are_refused_as_the_fault_says(
    node: Node, fault: str, answers: tuple[str | None, ...]
) -> None:
    nvml = node.caller()
    requests = (
        ("nvmlDeviceSetPowerManagementLimit", 250_000),
        ("nvmlDeviceSetGpuLockedClocks", 210, 900),
        ("nvmlDeviceSetMemoryLockedClocks", 1512, 1512),
    )
    node.do("fault", "--gpu", "0", fault)
    for (function, *arguments), answer in zip(requests, answers, strict=True):
        assert nvml(function, GPU, *arguments) == (error(answer) if answer else None)
        assert nvml(function, NEIGHBOUR, *arguments) is None
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) in (250_000, 300_000)


def test_somebody_else_may_set_the_limit(node: Node) -> None:
    nvml = node.caller()
    node.do("fault", "--gpu", "0", "external-limit=250")
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 250_000
    refused = node.sim("fault", "--gpu", "0", "external-limit=20")
    assert refused.returncode == 1
    assert "150 to 300 W" in refused.stderr
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 250_000


def test_an_xid_wakes_those_who_wait_for_it_on_that_card(node: Node) -> None:
    waiting, other = node.caller(), node.caller()
    node.do("fault", "--gpu", "0", "xid=31")  # before the registration: not delivered
    waiting.send("wait_for_event", GPU, XID_EVENT, 20_000)
    other.send("wait_for_event", NEIGHBOUR, XID_EVENT, 1_000)
    assert waiting.receive() == other.receive() == "registered"
    node.do("fault", "--gpu", "0", "xid=79")
    assert waiting.receive() == {"type": XID_EVENT, "data": 79, "instance": 0xFFFFFFFF}
    assert other.receive() == error("Timeout")
    assert waiting("fields", GPU, 230)[0]["unsigned"] == 2  # reboot
    assert waiting("fields", NEIGHBOUR, 230)[0]["unsigned"] == 0


def test_waiting_for_events_ends_when_the_card_is_lost(node: Node) -> None:
    nvml = node.caller()
    nvml.send("wait_for_event", GPU, XID_EVENT, 20_000)
    assert nvml.receive() == "registered"
    node.do("fault", "--gpu", "0", "lost")
    assert nvml.receive() == LOST


def test_an_event_type_that_the_card_lacks_is_refused(node: Node) -> None:
    nvml = node.caller()
    assert nvml("wait_for_event", GPU, 0x8000, 10) == error("NotSupported")
    assert nvml("wait_for_event", GPU, 1 << 40, 10) == error("InvalidArgument")


def test_an_attached_process_is_listed_heats_the_card_and_goes(node: Node) -> None:
    nvml = node.caller()
    idle = nvml("nvmlDeviceGetPowerUsage", GPU)
    attachment = attached(node, 8 * GIBIBYTE, load=0.5)
    (process,) = nvml("nvmlDeviceGetComputeRunningProcesses", GPU)
    assert (process["pid"], process["usedGpuMemory"]) == (os.getpid(), 8 * GIBIBYTE)
    assert nvml("nvmlDeviceGetComputeRunningProcesses", NEIGHBOUR) == []
    (usage,) = nvml("nvmlDeviceGetProcessUtilization", GPU, 0)
    assert (usage["pid"], usage["smUtil"]) == (os.getpid(), 50)
    assert nvml("nvmlDeviceGetUtilizationRates", GPU)["gpu"] == 50
    wait_until("watts", lambda: nvml("nvmlDeviceGetPowerUsage", GPU) > idle + 80_000)
    assert attachment.say(load=0.0, vram_bytes=GIBIBYTE) == {"ok": True}
    used = nvml("nvmlDeviceGetMemoryInfo", GPU)["used"]
    assert attachment.say(vram_bytes=2 * GIBIBYTE) == {"ok": True}
    assert nvml("nvmlDeviceGetMemoryInfo", GPU)["used"] == used + GIBIBYTE
    attachment.close()
    wait_until("gone", lambda: nvml("nvmlDeviceGetComputeRunningProcesses", GPU) == [])
    wait_until("idle again", lambda: nvml("nvmlDeviceGetPowerUsage", GPU) < idle + 10_000)


def test_two_contexts_of_one_process_are_one_entry(node: Node) -> None:
    nvml = node.caller()
    first, second = attached(node), attached(node, 2 * GIBIBYTE)
    (process,) = nvml("nvmlDeviceGetComputeRunningProcesses", GPU)
    assert process["usedGpuMemory"] == 3 * GIBIBYTE
    first.close()
    second.close()


def test_memory_stays_held_while_a_child_has_the_descriptor(node: Node) -> None:
    """An orphan: the process that made the context is dead, its child still holds it."""
    nvml = node.caller()
    program = (
        "import json, socket, subprocess, sys\n"
        "connection = socket.socket(socket.AF_UNIX); connection.connect(sys.argv[1])\n"
        "line = json.dumps({'uuid': sys.argv[2], 'vram_bytes': 2**30}).encode()\n"
        "connection.sendall(line + b'\\n'); assert b'true' in connection.recv(100)\n"
        "child = subprocess.Popen(['sleep', '600'], pass_fds=[connection.fileno()],\n"
        "    stdout=subprocess.DEVNULL, start_new_session=True)\n"
        "print(child.pid)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(node.directory / "attach.sock"), uuid_of(node)],
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = parent.communicate(timeout=30)
    child = int(output)
    try:
        (process,) = nvml("nvmlDeviceGetComputeRunningProcesses", GPU)
        assert process["pid"] == parent.pid
        assert not Path(f"/proc/{parent.pid}").exists()
        assert process["usedGpuMemory"] == GIBIBYTE
    finally:
        os.kill(child, signal.SIGKILL)
    wait_until("freed", lambda: nvml("nvmlDeviceGetComputeRunningProcesses", GPU) == [])


def test_a_lost_context_is_told_by_the_end_of_the_stream(node: Node) -> None:
    nvml = node.caller()
    attachment = attached(node)
    node.do("fault", "--gpu", "0", "context-lost")
    assert attachment.is_at_end()
    assert nvml("nvmlDeviceGetComputeRunningProcesses", GPU) == []
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) > 20
    attachment.close()


def test_a_card_that_is_full_refuses_more(node: Node) -> None:
    first = attached(node, 70 * GIBIBYTE)
    second = node.attach()
    answer = second.say(uuid=uuid_of(node), vram_bytes=20 * GIBIBYTE)
    assert answer["ok"] is False
    assert "out of memory" in answer["error"]
    assert second.is_at_end()
    refused = first.say(vram_bytes=90 * GIBIBYTE)
    assert refused["ok"] is False
    assert first.say(vram_bytes=GIBIBYTE) == {"ok": True}
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"\n", "file"),
        (b"{}\n", "uuid"),
        (b'{"uuid": "GPU-none"}\n', "GPU-none"),
        (b'{"uuid": "GPU-none", "vram_bytes": -1}\n', "vram_bytes"),
        (b'{"uuid": "GPU-none", "load": 2}\n', "load"),
        (b'{"uuid": "GPU-none", "colour": 2}\n', "colour"),
        (b"\xff\xfe\n", "file"),
    ],
)
def test_a_wrong_first_line_is_refused_by_the_field(node: Node, line: bytes, named: str) -> None:
    attachment = node.attach()
    answer = attachment.say_raw(line)
    assert answer["ok"] is False
    assert named in answer["error"]
    attachment.close()


def test_clients_that_misbehave_disturb_nobody(node: Node) -> None:
    endless = node.attach()
    with contextlib.suppress(OSError):  # hung up on while it still sent: as good
        endless.socket.sendall(b"x" * 100_000)
    good = attached(node)
    assert good.say(load=0.1) == {"ok": True}
    wrong = good.say(load=7)
    assert wrong["ok"] is False
    assert "load" in wrong["error"]
    assert node.do("show")[0]["load"] == pytest.approx(0.1)
    endless.close()
    good.close()


def test_reloading_the_driver_takes_settings_contexts_and_handles(node: Node) -> None:
    nvml = node.caller()
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    assert nvml("nvmlDeviceSetGpuLockedClocks", GPU, 210, 900) is None
    attachment = attached(node)
    (card, _) = node.do("reload-driver")
    assert (card["power_limit_watts"], card["sm_lock_mhz"]) == (300, None)
    assert attachment.is_at_end()
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == LOST
    nvml("forget")
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 300_000
    attachment.close()


def test_a_killed_daemon_is_no_unloaded_driver(own_node: Node) -> None:
    nvml = own_node.caller()
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    before = nvml("nvmlDeviceGetTotalEnergyConsumption", GPU)
    own_node.stop(signal.SIGKILL)
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 200_000
    own_node.start()
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 200_000
    assert nvml("nvmlDeviceGetTotalEnergyConsumption", GPU) >= before


def test_a_stopped_simulator_is_an_unloaded_driver(own_node: Node) -> None:
    nvml = own_node.caller()
    assert nvml("nvmlDeviceSetPowerManagementLimit", GPU, 200_000) is None
    own_node.stop()
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == LOST
    nvml("nvmlShutdown")
    assert nvml("nvmlInit") == error("DriverNotLoaded")
    own_node.start()
    assert nvml("nvmlInit") is None
    nvml("forget")
    assert nvml("nvmlDeviceGetPowerManagementLimit", GPU) == 300_000


def test_readers_are_told_when_other_cards_take_the_place(own_node: Node) -> None:
    nvml = own_node.caller()
    assert nvml("nvmlDeviceGetName", GPU) == "NVIDIA A100 80GB PCIe"
    own_node.stop(signal.SIGKILL)
    own_node.cards.write_text('{"cards": [{"preset": "T4", "pci_address": "0000:41:00.0"}]}')
    own_node.start()
    assert nvml("nvmlDeviceGetName", GPU) == LOST
    nvml("nvmlShutdown")
    nvml("nvmlInit")
    nvml("forget")
    assert nvml("nvmlDeviceGetName", GPU) == "Tesla T4"


def test_control_is_for_root_and_attaching_for_everybody(node: Node) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in node.directory.iterdir()}
    assert modes == {"attach.sock": 0o666, "control.sock": 0o600, "state": 0o644}


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
    node: Node, arguments: tuple[str, ...], status: int, named: str
) -> None:
    done = node.sim(*arguments)
    assert done.returncode == status
    assert named in done.stderr
    card = node.do("show")[0]
    assert (card["load"], card["ambient_celsius"], card["faults"]) == (0, 24, [])


def test_a_simulator_that_does_not_run_is_said_so(tmp_path: Path, library: Path) -> None:
    node = Node(tmp_path, library, tmp_path / "none")
    done = node.sim("show")
    assert done.returncode == 3
    assert "is gpuwarden-sim.service running?" in done.stderr


def test_wrong_cards_stop_the_start_with_their_file_and_field(own_node: Node) -> None:
    own_node.stop()
    right = own_node.cards.read_text()
    own_node.cards.write_text(right.replace("A100", "A999"))
    with pytest.raises(AssertionError, match=r"cards\.json: cards\.0\.preset.*A999"):
        own_node.start()
    own_node.cards.write_text(right)
    own_node.start()


def test_looking_at_cards_needs_no_reading_glasses(node: Node) -> None:
    attachment = attached(node)
    shown = node.sim("show").stdout
    assert "GPU 0: NVIDIA A100 80GB PCIe at 0000:41:00.0" in shown
    assert f"process {os.getpid()}: 1024 MiB" in shown
    attachment.close()
