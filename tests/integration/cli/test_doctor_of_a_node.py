# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden doctor`` as its user meets it: a made-up machine with simulated cards."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpuwarden.config import Configuration, digest
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import Card, PlanData, PlannedWorker
from gpuwarden.doctor.memory import THP
from tests.integration.simulation import Node
from tests.unit.cli.samples import guard
from tests.unit.doctor.machine import GROUP, Made

ROOT = Path(__file__).parents[3]
RUN = """\
import sys
from pathlib import Path
from gpuwarden.cli import doctor
from gpuwarden.cli.main import main
from gpuwarden.doctor.node import look
doctor.look = lambda: look(Path(sys.argv[1]))
sys.exit(main(["doctor", *sys.argv[2:]]))
"""
# Answers `systemctl show` about any unit: our worker runs, power daemons and tuned don't.
SYSTEMCTL = f"""#!/bin/sh
[ "$1" = show ] || {{ echo "systemd 252 (252)"; exit; }}
for word; do
  case $word in
    medgemma-worker@0*) echo "LoadState=loaded\nActiveState=active\nControlGroup={GROUP}\n" ;;
    medgemma-*) echo "LoadState=loaded\nActiveState=active\n" ;;
    *.service) echo "LoadState=not-found\nActiveState=inactive\n" ;;
  esac
done
"""
NO_SYSTEMD = "#!/bin/sh\necho 'System has not been booted with systemd' >&2; exit 1\n"
KEYS = ["subject", "name", "verdict", "found", "wanted", "why", "mend"]


@dataclass
class Bench:
    """A healthy machine in a folder; tests break what they are about."""

    made: Made
    bin: Path
    environment: dict[str, str] = field(default_factory=dict)

    def systemctl(self, script: str) -> None:
        (self.bin / "systemctl").write_text(script)
        (self.bin / "systemctl").chmod(0o755)

    def doctor(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", RUN, str(self.made.root), *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            env=self.environment,
        )

    def findings(self) -> tuple[int, dict[str, Any]]:
        finished = self.doctor("--json")
        assert finished.stderr == ""
        document = json.loads(finished.stdout)
        return finished.returncode, {each["name"]: each for each in document["findings"]}


@pytest.fixture
def bench(tmp_path: Path, simulated: Node) -> Bench:
    made = Made(tmp_path / "root")
    bench = Bench(made, tmp_path / "bin")
    bench.bin.mkdir()
    bench.systemctl(SYSTEMCTL)
    bench.environment = os.environ | {
        "GPUWARDEN_NVML_LIBRARY": str(simulated.library),
        "GPUWARDEN_SIM_STATE": str(simulated.state),
        "PATH": f"{bench.bin}:{os.environ['PATH']}",
    }
    write_healthy_machine(made, [str(card["uuid"]) for card in simulated.do("show")])
    return bench


def write_healthy_machine(made: Made, uuids: list[str]) -> None:
    for path, text in {
        "/proc/sys/kernel/random/boot_id": Path("/proc/sys/kernel/random/boot_id").read_text(),
        "/proc/sys/kernel/sched_rt_runtime_us": "950000\n",
        "/proc/1/cmdline": "/sbin/init\0",
        "/proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n",
        "/proc/meminfo": "MemTotal: 1000 kB\nHugePages_Total: 0\n",
        "/proc/self/mounts": "/dev/vda / ext4 rw 0 0\n",
        "/sys/devices/system/cpu/online": "0-3\n",
        "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
        f"/sys/fs/cgroup{GROUP}/cgroup.procs": "100\n",
        f"/sys/fs/cgroup{GROUP}/memory.swap.max": "0\n",
        "/sys/block/vda/queue/scheduler": "none [mq-deadline]\n",
        "/sys/block/vda/device/vendor": "0x1af4\n",
        THP: "always madvise [never]\n",
        "/etc/passwd": f"root:x:{os.getuid()}:0::/:/bin/sh\n",
        "/etc/group": f"root:x:{os.getgid()}:\ngpuwarden:x:990:\n",
        "/usr/lib/tmpfiles.d/gpuwarden.conf": "d /run/gpuwarden 0755 root root -\n",
    }.items():
        made.write(path, text)
    made.process(100, cpus="1", numa_maps="7f00 prefer:0 anon=9 N0=9 kernelpagesize_kB=4\n")
    for folder in ("run/systemd/system", "run/gpuwarden/placement", "run/gpuwarden/guard"):
        (made.root / folder).mkdir(parents=True)
    (made.root / "run/gpuwarden").chmod(0o755)
    write_states(made, uuids)


def write_states(made: Made, uuids: list[str]) -> None:
    """The guard's word, good for as long as a test takes, and the plan."""
    state_file = made.root / "run/gpuwarden/guard/state.json"
    SnapshotWriter(state_file, "guard", valid_milliseconds=60_000).publish(guard())
    worker = PlannedWorker(
        number=0, gpu_index=0, gpu_uuid=uuids[0], numa_node=0, cpus="1", memory_max_bytes=1
    )
    cards = [
        Card(
            index=index,
            uuid=uuid,
            name="NVIDIA A100",
            pci_address=f"0000:{0x41 + index:02x}:00.0",
            minor=index,
            numa_node=0,
            present=True,
        )
        for index, uuid in enumerate(uuids)
    ]
    plan = PlanData(
        driver_version="1",
        simulated=True,
        cards=cards,
        workers=[worker],
        housekeeping_cpus="0",
        configuration_digest=digest(Configuration()),
    )
    SnapshotWriter(made.root / "run/gpuwarden/placement/plan.json", "placement").publish(plan)


def test_a_healthy_machine_has_nothing_wrong_and_says_so_in_a_few_lines(bench: Bench) -> None:
    finished = bench.doctor()
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "with SIMULATED cards" in finished.stdout.splitlines()[0]
    assert "Wrong" not in finished.stdout
    assert "CPUs of worker 0" in finished.stdout
    everything = bench.doctor("--all").stdout
    assert len(everything.splitlines()) > 2 * len(finished.stdout.splitlines())
    assert "why     across the sockets" in everything


def test_the_json_has_every_finding_with_every_key(bench: Bench) -> None:
    finished = bench.doctor("--json")
    document = json.loads(finished.stdout)
    assert list(document) == ["schema", "version", "as_root", "simulated", "counts", "findings"]
    assert (document["schema"], document["simulated"]) == (1, True)
    assert document["as_root"] is (os.geteuid() == 0)
    assert all(list(finding) == KEYS for finding in document["findings"])
    assert sum(document["counts"].values()) == len(document["findings"])
    assert document["counts"]["wrong"] == 0


def test_what_is_wrong_comes_first_with_its_mend_and_exit_code_1(bench: Bench) -> None:
    bench.made.process(100, cpus="0-3")
    (bench.made.root / "run/gpuwarden").chmod(0o777)
    bench.made.write(THP, "[always] madvise never\n")
    finished = bench.doctor()
    assert finished.returncode == 1
    lines = finished.stdout.splitlines()
    assert lines[2] == "Wrong (2)"
    assert lines[3:5] == ["  CPUs of worker 0", "    found   PID 100: 0-3"]
    assert "    mend    systemctl restart medgemma-worker@0.service" in lines
    assert "    mend    systemd-tmpfiles --create gpuwarden.conf" in lines
    doubtful = next(n for n, line in enumerate(lines) if line.startswith("Doubtful"))
    assert "  transparent huge pages" in lines[doubtful:]


def test_a_driver_that_hangs_is_wrong_after_its_deadline(bench: Bench, simulated: Node) -> None:
    simulated.do("fault", "--gpu", "0", "hang")
    code, findings = bench.findings()  # which has an end, or it would have been ended
    assert code == 1
    assert "did not answer within 5 s" in findings["NVML"]["found"]


def test_a_dead_service_and_a_silent_systemd_are_told_and_not_failed_on(bench: Bench) -> None:
    bench.systemctl(NO_SYSTEMD)
    (bench.made.root / "run/gpuwarden/guard/state.json").unlink()
    code, findings = bench.findings()
    assert code == 0
    for name in ("service", "systemd", "power daemons"):
        assert findings[name]["verdict"] == "unknown"
    assert findings["service"]["mend"] == "systemctl start medgemma-guard.service"


def test_a_machine_without_anything_is_told_of(bench: Bench, tmp_path: Path) -> None:
    bench.environment.pop("GPUWARDEN_NVML_LIBRARY")
    bench.systemctl(NO_SYSTEMD)
    bench.made = Made(tmp_path / "empty")
    bench.made.root.mkdir()
    code, findings = bench.findings()
    assert code == 1
    wrong = {name for name, each in findings.items() if each["verdict"] == "wrong"}
    assert wrong == {"NVIDIA driver", "control groups", "systemd"}


@pytest.mark.parametrize("words", [["--yes"], ["--output", "/tmp/x"]])
def test_options_of_the_proof_go_with_the_proof(bench: Bench, words: list[str]) -> None:
    finished = bench.doctor(*words)
    assert finished.returncode == 2
    assert "--prove-actuators" in finished.stderr
