# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.simulation import GIBIBYTE, Node, attached, uuid_of
from tests.waiting import wait_until

GPU, NEIGHBOUR = "gpu:0", "gpu:1"


def test_an_attached_process_is_listed_heats_the_card_and_goes(simulated: Node) -> None:
    nvml = simulated.caller()
    idle = nvml("nvmlDeviceGetPowerUsage", GPU)
    attachment = attached(simulated, 8 * GIBIBYTE, load=0.5)
    (process,) = nvml("nvmlDeviceGetComputeRunningProcesses", GPU)
    assert (process["pid"], process["usedGpuMemory"]) == (os.getpid(), 8 * GIBIBYTE)
    assert nvml("nvmlDeviceGetComputeRunningProcesses", NEIGHBOUR) == []
    (usage,) = nvml("nvmlDeviceGetProcessUtilization", GPU, 0)
    assert (usage["pid"], usage["smUtil"]) == (os.getpid(), 50)
    assert nvml("nvmlDeviceGetUtilizationRates", GPU)["gpu"] == 50
    wait_until(lambda: nvml("nvmlDeviceGetPowerUsage", GPU) > idle + 80_000)
    assert attachment.say(load=0.0, vram_bytes=GIBIBYTE) == {"ok": True}
    used = nvml("nvmlDeviceGetMemoryInfo", GPU)["used"]
    assert attachment.say(vram_bytes=2 * GIBIBYTE) == {"ok": True}
    assert nvml("nvmlDeviceGetMemoryInfo", GPU)["used"] == used + GIBIBYTE
    attachment.close()
    wait_until(lambda: nvml("nvmlDeviceGetComputeRunningProcesses", GPU) == [])
    wait_until(lambda: nvml("nvmlDeviceGetPowerUsage", GPU) < idle + 10_000)


def test_two_contexts_of_one_process_are_one_entry(simulated: Node) -> None:
    nvml = simulated.caller()
    first, second = attached(simulated), attached(simulated, 2 * GIBIBYTE)
    (process,) = nvml("nvmlDeviceGetComputeRunningProcesses", GPU)
    assert process["usedGpuMemory"] == 3 * GIBIBYTE
    first.close()
    second.close()


def test_memory_stays_held_while_a_child_has_the_descriptor(simulated: Node) -> None:
    """An orphan: the process that made the context is dead, its child still holds it."""
    nvml = simulated.caller()
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
        [
            sys.executable,
            "-c",
            program,
            str(simulated.directory / "attach.sock"),
            uuid_of(simulated),
        ],
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
    wait_until(lambda: nvml("nvmlDeviceGetComputeRunningProcesses", GPU) == [])


def test_a_lost_context_is_told_by_the_end_of_the_stream(simulated: Node) -> None:
    nvml = simulated.caller()
    attachment = attached(simulated)
    simulated.do("fault", "--gpu", "0", "context-lost")
    assert attachment.is_at_end()
    assert nvml("nvmlDeviceGetComputeRunningProcesses", GPU) == []
    assert nvml("nvmlDeviceGetTemperature", GPU, 0) > 20
    attachment.close()


def test_a_card_that_is_full_refuses_more(simulated: Node) -> None:
    first = attached(simulated, 70 * GIBIBYTE)
    second = simulated.attach()
    answer = second.say(uuid=uuid_of(simulated), vram_bytes=20 * GIBIBYTE)
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
def test_a_wrong_first_line_is_refused_by_the_field(
    simulated: Node, line: bytes, named: str
) -> None:
    attachment = simulated.attach()
    answer = attachment.say_raw(line)
    assert answer["ok"] is False
    assert named in answer["error"]
    attachment.close()


def test_clients_that_misbehave_disturb_nobody(simulated: Node) -> None:
    endless = simulated.attach()
    with contextlib.suppress(OSError):  # hung up on while it still sent: as good
        endless.socket.sendall(b"x" * 100_000)
    good = attached(simulated)
    assert good.say(load=0.1) == {"ok": True}
    wrong = good.say(load=7)
    assert wrong["ok"] is False
    assert "load" in wrong["error"]
    assert simulated.do("show")[0]["load"] == pytest.approx(0.1)
    endless.close()
    good.close()


def test_control_is_for_root_and_attaching_for_everybody(simulated: Node) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in simulated.directory.iterdir()}
    devices = {f"card-{card['uuid']}": 0o644 for card in simulated.do("show")}
    assert modes == {"attach.sock": 0o666, "control.sock": 0o600, "state": 0o644} | devices


def test_looking_at_cards_needs_no_reading_glasses(simulated: Node) -> None:
    attachment = attached(simulated)
    shown = simulated.sim("show").stdout
    assert "GPU 0: NVIDIA A100 80GB PCIe at 0000:41:00.0" in shown
    assert f"process {os.getpid()}: 1024 MiB" in shown
    attachment.close()
