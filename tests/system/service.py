# SPDX-License-Identifier: Apache-2.0
"""What the system tests ask of a node, in the words of the service."""

import json
from dataclasses import dataclass
from typing import Any

from tests.node.vm import Node

SERVICE_UNITS = (
    "medgemma-guard.service",
    "medgemma-gateway.service",
    "medgemma-worker@0.service",
    "medgemma-worker@1.service",
    "medgemma-thermal@0.service",
    "medgemma-thermal@1.service",
    "medgemma-scan@0.service",
    "medgemma-scan@1.service",
)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])


def predict(
    node: Node, path: str, media_type: str = "application/dicom", extra: str = ""
) -> Answer:
    """POST the file at ``path`` in the node as a multipart /predict request."""
    return curl(node, f"-F 'image=@{path};type={media_type}' -F question=stats {extra}", "/predict")


def curl(node: Node, arguments: str, path: str) -> Answer:
    """One HTTP request from inside the node."""
    result = node.run(
        f"curl --silent --show-error --max-time 60 -w '\\n%{{http_code}}' {arguments} "
        f"http://127.0.0.1:7860{path}",
        timeout_seconds=90,
    )
    body, _, status = result.text.rpartition("\n")
    return Answer(int(status), json.loads(body))


def main_pid(node: Node, unit: str) -> int:
    return int(node.run(f"systemctl show -P MainPID {unit}").text)


def state(node: Node) -> str:
    """Manager.State on the bus."""
    return (
        node.run("busctl get-property org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager State")
        .text.split()[1]
        .strip('"')
    )


def status(node: Node) -> dict[str, Any]:
    """Manager.GetStatus."""
    answer = node.run(
        "busctl --json=short call org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager GetStatus"
    )
    document: dict[str, Any] = json.loads(json.loads(answer.text)["data"][0])
    return document


def wait_for(node: Node, condition: str, timeout_seconds: float = 300) -> None:
    """Wait until a shell condition holds in the node; tried again each half second there."""
    node.run(f"until {condition}; do sleep 0.5; done", timeout_seconds=timeout_seconds)


def wait_for_state(node: Node, wanted: str, timeout_seconds: float = 300) -> None:
    """Wait until the guard has that state, by its own file and on the bus.

    To ask the bus takes an emulated node many times as long as to look into the file.
    """
    in_file = f'grep -qs \'"state":"{wanted}"\' /run/gpuwarden/guard/state.json'
    on_bus = (
        "busctl get-property org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager State "
        f"2>/dev/null | grep -q '\"{wanted}\"'"
    )
    wait_for(node, f"{in_file}; do sleep 0.5; done; until {on_bus}", timeout_seconds)


def wait_for_next_life(node: Node, unit: str, former_pid: int | str) -> None:
    """Wait until a unit is up as another process than that one.

    Between two lives it may be active for a moment, with no process.
    """
    wait_for(
        node,
        f"pid=$(systemctl show -P MainPID {unit}); "
        f"[ $pid != 0 ] && [ $pid != {former_pid} ] && systemctl is-active -q {unit}",
    )


def configure(node: Node, text: str, path: str) -> None:
    """Put a configuration file into the node, and have everything, workers too, go by it."""
    node.run(["mkdir", "-p", path.rpartition("/")[0]])
    node.put(text.encode(), path)
    node.run(
        "systemctl reload medgemma-guard; systemctl restart 'medgemma-worker@*'",
        timeout_seconds=180,
    )
    wait_for_state(node, "running")


def our_processes(node: Node) -> list[str]:
    """``unit command`` of each process of ours, found by cgroup and command line."""
    listing = node.run(["python3", "-c", LIST_PROCESSES]).text
    return [line for line in listing.splitlines() if "gpuwarden-sim" not in line]


LIST_PROCESSES = """
import pathlib
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        group = (folder / "cgroup").read_text().strip().removeprefix("0::")
        command = (folder / "cmdline").read_bytes().replace(b"\\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        continue
    if "medgemma" in group or "/usr/lib/gpuwarden/" in command:
        if "node-agent" not in group:
            print(group.rsplit("/", 1)[-1], command.replace("\\n", " "))
"""


def strangers(node: Node) -> list[str]:
    """Processes of ours that are in no medgemma unit."""
    return [line for line in our_processes(node) if not line.startswith("medgemma-")]
