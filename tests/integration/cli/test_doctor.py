"""The proof on simulated cards, with the driver's library in a process of its own."""

import asyncio
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpuwarden import names
from gpuwarden.cli.proof_conditions import hindrance
from gpuwarden.control.requests import Override, ThermalStatusAnswer
from gpuwarden.control.snapshot import SnapshotWriter, boot_id
from gpuwarden.control.states import Card, PlanData
from gpuwarden.thermal.originals import Here, Record
from gpuwarden.thermal.originals_store import OriginalsStore, Places, driver_load
from gpuwarden.values import ThermalState
from tests.integration.cli.thermal_guard import ThermalGuard, guarding, publish, rows
from tests.integration.simulation import Caller, Node
from tests.unit.cli.samples import gpu

ROOT = Path(__file__).parents[3]
WITHOUT_ADMINISTRATION = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
GPU = "gpu:0"
RUN = """\
import sys
from pathlib import Path
from gpuwarden import names
root = Path(sys.argv[1])
names.RUN_DIRECTORY = root / "run"
names.PLAN_FILE = root / "plan.json"
names.THERMAL_ORIGINALS_DIRECTORY = root / "var"
names.CONFIG_FILE = root / "gpuwarden.toml"
names.CONFIG_DIRECTORY = root / "conf.d"
names.ACCEPTED_CONFIGURATION_FILE = root / "none.json"
from gpuwarden.cli.main import main
sys.exit(main(["doctor", *sys.argv[2:]]))
"""
DOWN = "echo inactive"


@dataclass
class Bench:
    """A node's folders, its simulated cards, and a systemctl that answers as told."""

    root: Path
    node: Node
    environment: dict[str, str] = field(default_factory=dict)

    def systemctl(self, script: str) -> None:
        path = self.root / "bin" / "systemctl"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", RUN, str(self.root), *words]

    def doctor(
        self, *words: str, prefix: tuple[str, ...] = (), **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*prefix, *self.command("--prove-actuators", "0", *words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            env=self.environment,
            **({"stdin": subprocess.DEVNULL} | options),
        )

    def proof(self, *words: str) -> tuple[int, Any]:
        finished = self.doctor("--yes", "--json", *words)
        assert finished.stdout, finished.stderr
        return finished.returncode, json.loads(finished.stdout)

    @property
    def uuid(self) -> str:
        return str(self.node.do("show")[0]["uuid"])

    @property
    def store(self) -> OriginalsStore:
        return OriginalsStore(self.uuid, Places(self.root / "var", self.root / "run" / "thermal"))

    @property
    def here(self) -> Here:
        return Here(self.uuid, boot_id(), driver_load())


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


def limit_of(nvml: Caller) -> int:
    milliwatts = nvml("nvmlDeviceGetPowerManagementLimit", GPU)
    assert isinstance(milliwatts, int)
    return milliwatts


def sm_lock(bench: Bench) -> Any:
    return bench.node.do("show")[0]["sm_lock_mhz"]


def verdicts(protocol: Any) -> list[tuple[str, str, str]]:
    return [(each["actuator"], each["step"], each["verdict"]) for each in protocol["steps"]]


def test_a_card_that_takes_everything_is_proven_and_has_its_own_back(
    bench: Bench, nvml: Caller
) -> None:
    nvml("nvmlDeviceSetPowerManagementLimit", GPU, 250_000)
    code, protocol = bench.proof()
    assert code == 0
    assert protocol["outcomes"] == {"power-limit": "proven", "sm-clock-lock": "proven"}
    assert verdicts(protocol) == [
        ("power-limit", "read", "good"),
        ("power-limit", "write what is there", "good"),
        ("power-limit", "5 % less", "good"),
        ("power-limit", "put back", "good"),
        ("sm-clock-lock", "read", "good"),
        ("sm-clock-lock", "5 % below the highest", "good"),
        ("sm-clock-lock", "put back", "good"),
    ]
    less = protocol["steps"][2]
    assert (less["asked"], less["answered"], less["read_back"]) == ("237 W", "ok", "237 W")
    assert (protocol["simulated"], protocol["uuid"]) == (True, bench.uuid)
    assert (protocol["restored"], protocol["stopped"]) == (True, "")
    assert limit_of(nvml) == 250_000
    assert sm_lock(bench) is None
    assert bench.store.load(bench.here).record is None


def test_the_protocol_is_dated_and_left_in_a_file(bench: Bench) -> None:
    file = bench.root / "protocol.txt"
    finished = bench.doctor("--yes", "--output", str(file))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert file.read_text() == finished.stdout
    for part in (
        "Proof of what can be set on GPU 0",
        f"NVIDIA A100, {bench.uuid}, 0000:41:00.0",
        ", SIMULATED",
        f"date    {time.strftime('%Y-')}",
        "STEP",
        "Power limit: proven; SM clock lock: proven",
        "everything is as it was found",
    ):
        assert part in finished.stdout
    nowhere = bench.doctor("--yes", "--output", "/nowhere/at/all")
    assert nowhere.returncode == 1
    assert "/nowhere/at/all can't be written" in nowhere.stderr


def test_a_loaded_card_shows_that_it_heeds_the_lock(bench: Bench) -> None:
    bench.node.do("load", "--gpu", "0", "--fraction", "1")
    _, protocol = bench.proof()
    lock = protocol["steps"][5]
    assert int(lock["read_back"].removesuffix(" MHz")) <= int(lock["asked"].removesuffix(" MHz"))


def test_a_card_at_its_minimum_has_no_room(bench: Bench, nvml: Caller) -> None:
    least, _ = nvml("nvmlDeviceGetPowerManagementLimitConstraints", GPU)
    nvml("nvmlDeviceSetPowerManagementLimit", GPU, least)
    code, protocol = bench.proof()
    assert code == 0
    assert protocol["outcomes"]["power-limit"] == "not tried"
    assert "is the card's minimum" in protocol["steps"][2]["note"]
    assert limit_of(nvml) == least


@pytest.mark.parametrize(
    ("fault", "outcomes"),
    [
        ("no-power-limit", {"power-limit": "not proven", "sm-clock-lock": "proven"}),
        ("no-permission", {"power-limit": "not proven", "sm-clock-lock": "not proven"}),
    ],
)
def test_a_card_that_refuses_is_not_proven(
    fault: str, outcomes: dict[str, str], bench: Bench, nvml: Caller
) -> None:
    before = limit_of(nvml)
    bench.node.do("fault", "--gpu", "0", fault)
    code, protocol = bench.proof()
    assert code == 1
    assert protocol["outcomes"] == outcomes
    assert "NVML" in protocol["steps"][1]["answered"]
    assert limit_of(nvml) == before


def test_a_baseline_comes_back_in_place_of_no_lock(bench: Bench) -> None:
    (bench.root / "gpuwarden.toml").write_text("[thermal]\nsm_clock_baseline_mhz = 1200\n")
    code, protocol = bench.proof()
    assert code == 0
    assert protocol["steps"][-1]["asked"] == "1200 MHz"
    assert sm_lock(bench) is not None


@pytest.mark.parametrize(
    ("number", "moment"), [("INT", 3), ("INT", 4), ("TERM", 5), ("HUP", 5), ("TERM", 6)]
)
def test_a_signal_leaves_the_card_as_it_was(
    number: str, moment: int, bench: Bench, nvml: Caller
) -> None:
    """The signal comes while systemctl is asked for the ``moment``-th time, between two steps."""
    counter = bench.root / "asked"
    bench.systemctl(
        f"echo x >> {counter}; "
        f'[ "$(wc -l < {counter})" = {moment} ] && kill -{number} $PPID; {DOWN}'
    )
    before = limit_of(nvml)
    code, protocol = bench.proof()
    assert code == 1
    assert protocol["stopped"] == f"interrupted by SIG{number}"
    assert protocol["restored"]
    assert limit_of(nvml) == before
    assert sm_lock(bench) is None
    assert bench.store.load(bench.here).record is None


def test_a_guard_that_comes_in_between_stops_the_proof(bench: Bench, nvml: Caller) -> None:
    counter = bench.root / "asked"
    bench.systemctl(
        f"echo x >> {counter}; [ $(wc -l < {counter}) -lt 5 ] && echo inactive || echo active"
    )
    before = limit_of(nvml)
    code, protocol = bench.proof()
    assert code == 1
    assert "medgemma-thermal@0.service is active" in protocol["stopped"]
    assert [each["step"] for each in protocol["steps"]] == ["read", "write what is there"]
    assert limit_of(nvml) == before


def test_originals_that_can_not_be_kept_stop_the_proof(bench: Bench, nvml: Caller) -> None:
    (bench.root / "var").rmdir()
    (bench.root / "var").write_text("a file in the way")
    before = limit_of(nvml)
    code, protocol = bench.proof()
    assert code == 1
    assert "the originals can't be kept" in protocol["stopped"]
    assert limit_of(nvml) == before


def test_a_killed_proof_leaves_the_originals_on_record(bench: Bench, nvml: Caller) -> None:
    """As long as the card has another value, the record names it; so a guard can put it back."""
    bench.systemctl(DOWN)
    before = limit_of(nvml)
    script = RUN.replace(
        'sys.exit(main(["doctor"',
        "import os, signal\n"
        "from gpuwarden.nvml.control import CardControl\n"
        "put = CardControl.set_power_limit\n"
        "def die(self, milliwatts):\n"
        "    live = put(self, milliwatts)\n"
        f"    if milliwatts != {before}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return live\n"
        "CardControl.set_power_limit = die\n"
        'sys.exit(main(["doctor"',
    )
    words = ("--prove-actuators", "0", "--yes")
    subprocess.run(
        [sys.executable, "-c", script, str(bench.root), *words],
        cwd=ROOT,
        env=bench.environment,
        timeout=60,
        check=False,
    )
    live = limit_of(nvml)
    record = bench.store.load(bench.here).record
    assert record is not None
    assert live < before
    assert record.original_milliwatts == before
    assert record.names(live)
    refused = bench.doctor("--yes")
    assert refused.returncode == 1
    assert "systemctl start medgemma-thermal@0 goes on from them" in refused.stderr
    assert limit_of(nvml) == live


def test_an_earlier_record_is_there_again_afterwards(bench: Bench, nvml: Caller) -> None:
    earlier = Record(
        uuid=bench.uuid, boot_id=boot_id(), sequence=7, original_milliwatts=limit_of(nvml)
    )
    assert bench.store.save(earlier) == ""
    assert bench.proof()[0] == 0
    later = bench.store.load(bench.here).record
    assert later is not None
    assert later.sequence > 7
    assert later.model_copy(update={"sequence": 7}) == earlier


def test_without_a_terminal_it_takes_a_yes(bench: Bench) -> None:
    finished = bench.doctor()
    assert finished.returncode == 2
    assert "on a terminal, or give --yes" in finished.stderr


@pytest.mark.parametrize(
    ("answers", "code", "clock"),
    [
        ("n\n", 1, None),
        ("\n", 1, None),
        ("y\nn\n", 0, "not tried"),
        ("yes\ny\n", 0, "proven"),
    ],
)
def test_it_asks_on_a_terminal(
    answers: str, code: int, clock: str | None, bench: Bench, nvml: Caller
) -> None:
    before = limit_of(nvml)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answers.encode())
        finished = bench.doctor("--json", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)
    assert finished.returncode == code
    assert "Go on? [y/N]" in finished.stderr
    if clock is None:
        assert finished.stdout == ""
        assert "not wanted: nothing was changed" in finished.stderr
    else:
        assert "nvidia-smi -lgc" in finished.stderr
        assert json.loads(finished.stdout)["outcomes"]["sm-clock-lock"] == clock
    assert limit_of(nvml) == before


def test_without_administration_nothing_is_tried(bench: Bench) -> None:
    finished = bench.doctor("--yes", prefix=WITHOUT_ADMINISTRATION)
    assert finished.returncode == 1
    assert "root with CAP_SYS_ADMIN" in finished.stderr


def test_a_card_that_is_not_there_is_told(bench: Bench) -> None:
    run = bench.command("--prove-actuators", "7", "--yes")
    finished = subprocess.run(
        run, capture_output=True, text=True, check=False, cwd=ROOT, env=bench.environment
    )
    assert finished.returncode == 2
    assert "there is no GPU 7; there are: 0, 1" in finished.stderr
    lost = subprocess.run(
        bench.command("--prove-actuators", "1", "--yes"),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=bench.environment,
    )
    assert lost.returncode == 1
    assert "is lost" in lost.stderr


def test_a_node_without_plan_or_driver_is_unreachable(bench: Bench) -> None:
    bench.environment["GPUWARDEN_NVML_LIBRARY"] = "/nowhere/libnvidia-ml.so.1"
    finished = bench.doctor("--yes")
    assert finished.returncode == 3
    assert "no NVIDIA driver" in finished.stderr
    (bench.root / "plan.json").unlink()
    finished = bench.doctor("--yes")
    assert finished.returncode == 3
    assert "systemctl start medgemma-numa.service" in finished.stderr


@pytest.mark.parametrize("words", [["--prove-actuators"], ["--prove-actuators", "x"]])
def test_bad_use_shows_the_usage(words: list[str], bench: Bench) -> None:
    finished = subprocess.run(
        bench.command(*words), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("usage: gpuwarden doctor")


class TestHindrance:
    """A running guard forbids it, unless it has let go for long enough."""

    @pytest.fixture(autouse=True)
    def node_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "run").mkdir()
        monkeypatch.setattr(names, "RUN_DIRECTORY", tmp_path / "run")
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        self.path = tmp_path / "bin" / "systemctl"
        self.systemctl("active")

    def systemctl(self, state: str) -> None:
        self.path.write_text(f"#!/bin/sh\necho {state}\n")
        self.path.chmod(0o755)

    @pytest.mark.parametrize("state", ["inactive", "failed"])
    def test_a_guard_that_is_down_is_none(self, state: str) -> None:
        self.systemctl(state)
        assert hindrance(0) == ""

    @pytest.mark.parametrize("state", [each for each in ThermalState if each != "released"])
    def test_a_guard_at_work_is_one(self, state: ThermalState) -> None:
        publish(gpu(0, state=state))
        reason = hindrance(0)
        assert f"guards GPU 0 ({state})" in reason
        assert "gpuwarden thermal release 0 120" in reason

    def test_a_guard_that_says_nothing_is_one(self) -> None:
        assert "has not released the card" in hindrance(0)
        publish(gpu(0, state=ThermalState.RELEASED), valid_milliseconds=0)
        assert "has not said lately" in hindrance(0)
        publish(gpu(0, state=ThermalState.RELEASED))
        assert "for how long is unknown" in hindrance(0)

    def test_a_systemd_that_does_not_answer_is_one(self) -> None:
        self.path.write_text("#!/bin/sh\necho Failed to connect >&2; exit 1\n")
        assert "is unknown: systemctl show" in hindrance(0)

    @pytest.mark.parametrize(
        ("state", "seconds_left", "needed", "reason"),
        [
            ("released", 100, 60, ""),
            ("released", 30, 60, "ends in"),
            ("released", 30, 10, ""),
            ("alert", 100, 60, "is being taken back"),
        ],
    )
    async def test_a_released_card_must_stay_so_for_long_enough(
        self, state: Any, seconds_left: int, needed: float, reason: str
    ) -> None:
        until = int((time.time() + seconds_left) * 1e6)
        data = gpu(0, state=ThermalState.RELEASED)
        override = Override(state=state, until_unix_microseconds=until)
        status = ThermalStatusAnswer(data=data, policy="regulated", override=override)
        publish(data)
        async with guarding(ThermalGuard(status, rows(1))):
            found = await asyncio.to_thread(hindrance, 0, needed)
        assert (found == "") if not reason else (reason in found)
