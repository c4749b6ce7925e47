# SPDX-License-Identifier: Apache-2.0
"""A /proc in a folder."""

from collections.abc import Sequence
from pathlib import Path

from gpuwarden.scan.processes import INITIAL_PID_NAMESPACE, ProcessReader

START, UID = 4711, 998
OTHER_NAMESPACE = "pid:[4026532999]"


class ProcFolder:
    """Processes as files; ``units`` is systemd's folder of what runs."""

    def __init__(self, root: Path) -> None:
        self.root = root / "proc"
        self.units = root / "units"
        self.units.mkdir()
        (self.root / "self/ns").mkdir(parents=True)
        (self.root / "self/ns/pid").symlink_to(INITIAL_PID_NAMESPACE)
        self.allow("0000000000080004")

    def allow(self, capabilities: str) -> None:
        """What the reader itself may do."""
        (self.root / "self/status").write_text(f"Name:\tx\nCapEff:\t{capabilities}\n")

    def reader(self) -> ProcessReader:
        return ProcessReader(self.root, self.units)

    def add(
        self,
        pid: int,
        *,
        states: str = "S",
        command: str = "python3",
        group: str = "0::/user.slice/session-1.scope",
        environment: bytes = b"",
        namespace: str = INITIAL_PID_NAMESPACE,
        opened: Sequence[str] = (),
        maps: str = "",
    ) -> Path:
        """A process with one thread for each of ``states``; the last has the descriptors."""
        folder = self.root / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "ns/pid").symlink_to(namespace)
        fields = " ".join(["0"] * 18 + [str(START), "0"])
        (folder / "stat").write_text(f"{pid} ({command}) {states[0]} {fields}\n")
        for number, state in enumerate(states):
            task = folder / "task" / str(pid + number)
            (task / "fd").mkdir(parents=True)
            (task / "stat").write_text(f"{pid + number} ({command}) {state} {fields}\n")
        for number, target in enumerate(opened):
            (task / "fd" / str(number)).symlink_to(target)
        (folder / "cgroup").write_text(f"{group}\n")
        (folder / "status").write_text(f"Name:\tx\nUid:\t{UID}\t0\t0\t0\n")
        (folder / "environ").write_bytes(environment)
        (folder / "maps").write_text(maps)
        return folder

    def run_unit(self, name: str) -> None:
        (self.units / f"invocation:{name}").symlink_to("0123456789abcdef")
