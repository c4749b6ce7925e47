# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gpuwarden.config import load_configuration
from gpuwarden.control.snapshot import boottime_nanoseconds, read_snapshot
from gpuwarden.control.states import PlanData
from gpuwarden.nvml.card import CardIdentity
from gpuwarden.placement.enumerate import EnumerationError, Listing
from gpuwarden.placement.gentle import Alive
from gpuwarden.placement.plan import Ground
from gpuwarden.placement.service import Places, let_go, run
from gpuwarden.systemd.command import SystemctlError
from gpuwarden.topology.sysfs import read_topology
from tests.machines import machine, write_sysfs

TWO_CARDS = [
    CardIdentity(0, "GPU-a", "NVIDIA H200", "0000:10:00.0", 0),
    CardIdentity(1, "GPU-b", "NVIDIA H200", "0000:80:00.0", 1),
]


class Node:
    """A node in a folder: its kernel, its driver, its systemd."""

    def __init__(self, root: Path) -> None:
        self.config_file = root / "etc/gpuwarden.toml"
        self.places = Places(
            load=lambda: load_configuration(self.config_file, None),
            unit_directory=root / "run/systemd/system",
            plan_file=root / "run/gpuwarden/plan.json",
            cards_file=root / "var/cards.json",
            sysfs=root / "sys",
            ground=lambda sysfs: (Ground(read_topology(sysfs)), []),
            alive=lambda: self.alive,
        )
        self.alive = Alive()
        for path in ("etc", "run/systemd/system", "run/gpuwarden", "var"):
            (root / path).mkdir(parents=True)
        nodes = {"0000:10:00.0": 0, "0000:80:00.0": 1}
        write_sysfs(root / "sys", machine(2, 2, 1), nodes)
        self.reloads = 0
        self.driver: Callable[[], Listing] = lambda: Listing("580.159.04", TWO_CARDS, [])

    def boot(self) -> int:
        return run(self.places, self.driver, self._reload)

    def _reload(self) -> None:
        self.reloads += 1

    def plan(self) -> PlanData:
        return read_snapshot(self.places.plan_file, PlanData).data

    def units(self) -> dict[str, str]:
        root = self.places.unit_directory
        return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}

    def configure(self, text: str) -> None:
        self.config_file.write_text(text)

    def fail(self, text: str, *, hung: bool = False) -> None:
        def driver() -> Listing:
            raise EnumerationError(text, hung=hung)

        self.driver = driver


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.delenv("GPUWARDEN_NVML_LIBRARY", raising=False)
    return Node(tmp_path)


def test_a_node_is_planned_written_down_and_reloaded_once(node: Node) -> None:
    assert node.boot() == 0
    plan = node.plan()
    assert [(w.number, w.numa_node, w.cpus) for w in plan.workers] == [(0, 0, "1"), (1, 1, "2-3")]
    assert plan.driver_version == "580.159.04"
    assert set(node.units()) == {
        "medgemma-worker@0.service.d/50-placement.conf",
        "medgemma-worker@1.service.d/50-placement.conf",
        "medgemma-workers-gpu0.slice",
        "medgemma-workers-gpu1.slice",
        "medgemma-thermal.target.d/50-placement.conf",
        "medgemma-thermal@0.service.d/50-placement.conf",
        "medgemma-thermal@1.service.d/50-placement.conf",
        "medgemma-scan.target.d/50-placement.conf",
        "medgemma-scan@0.service.d/50-placement.conf",
        "medgemma-scan@1.service.d/50-placement.conf",
    }
    assert node.reloads == 1


def test_the_plan_outlives_any_uptime(node: Node) -> None:
    node.boot()
    snapshot = read_snapshot(node.places.plan_file, PlanData)
    ten_years = 10 * 365 * 24 * 3600 * 10**9
    assert snapshot.is_fresh(boottime_nanoseconds() + ten_years)


def test_a_second_run_changes_nothing(node: Node) -> None:
    node.boot()
    before = node.units()
    plan = node.plan()
    assert node.boot() == 0
    assert node.units() == before
    assert node.plan() == plan
    assert node.reloads == 1


def test_what_is_no_longer_planned_is_taken_away(node: Node) -> None:
    node.configure("[workers]\nworkers_per_gpu = 2\n")
    node.boot()
    stranger = node.places.unit_directory / "medgemma-worker@1.service.d" / "60-admin.conf"
    stranger.write_text("[Service]\n")
    node.configure("")
    node.driver = lambda: Listing("580.159.04", TWO_CARDS[:1], [])
    assert node.boot() == 0
    assert set(node.units()) == {
        "medgemma-worker@0.service.d/50-placement.conf",
        "medgemma-worker@1.service.d/60-admin.conf",
        "medgemma-workers-gpu0.slice",
        "medgemma-thermal.target.d/50-placement.conf",
        "medgemma-thermal@0.service.d/50-placement.conf",
        "medgemma-thermal@1.service.d/50-placement.conf",
        "medgemma-scan.target.d/50-placement.conf",
        "medgemma-scan@0.service.d/50-placement.conf",
        "medgemma-scan@1.service.d/50-placement.conf",
    }
    assert not (node.places.unit_directory / "medgemma-worker@3.service.d").exists()
    assert node.reloads == 2


def test_a_missing_card_keeps_its_index_and_its_guard(node: Node) -> None:
    node.boot()
    node.driver = lambda: Listing("580.159.04", [TWO_CARDS[1]], [])
    node.boot()
    assert [(c.index, c.uuid, c.present) for c in node.plan().cards] == [
        (0, "GPU-a", False),
        (1, "GPU-b", True),
    ]
    target = node.units()["medgemma-thermal.target.d/50-placement.conf"]
    assert "Wants=medgemma-thermal@0.service" in target


def test_without_a_driver_there_is_a_plan_without_workers_that_says_why(node: Node) -> None:
    node.fail("the NVIDIA kernel driver is not loaded")
    assert node.boot() == 0
    assert node.plan().workers == []
    assert node.plan().reason == "the NVIDIA kernel driver is not loaded"


def test_a_driver_that_hangs_leaves_the_cards_as_last_known(node: Node) -> None:
    node.boot()
    workers = node.plan().workers
    node.fail("the NVIDIA driver did not answer within 10 s", hung=True)
    assert node.boot() == 0
    assert node.plan().workers == workers
    assert any("as last known" in text for text in node.plan().warnings)


def test_a_driver_that_hangs_on_an_unknown_node_is_the_reason(node: Node) -> None:
    node.fail("the NVIDIA driver did not answer within 10 s", hung=True)
    assert node.boot() == 0
    assert node.plan().reason == "the NVIDIA driver did not answer within 10 s"


def test_a_card_that_does_not_answer_is_a_warning(node: Node) -> None:
    node.driver = lambda: Listing("580.159.04", TWO_CARDS[:1], ["card 1: the card is lost"])
    node.boot()
    assert "card 1: the card is lost" in node.plan().warnings


def test_a_bad_configuration_leaves_the_last_good_plan_in_force(node: Node) -> None:
    node.configure("[workers]\nworkers_per_gpu = 2\n")
    node.boot()
    before = node.units()
    node.configure("[workers]\nworkers_per_gqu = 3\n")
    assert node.boot() == 0
    assert node.boot() == 0
    assert node.units() == before
    assert len(node.plan().workers) == 4
    refusals = [text for text in node.plan().warnings if "configuration was refused" in text]
    assert len(refusals) == 1
    assert "workers_per_gqu" in refusals[0]


def test_a_bad_configuration_on_a_fresh_node_is_planned_by_the_defaults(node: Node) -> None:
    node.configure("[workers]\nworkers_per_gpu = 'two'\n")
    assert node.boot() == 0
    assert len(node.plan().workers) == 2
    assert any("by the defaults" in text for text in node.plan().warnings)


def test_a_torn_record_of_the_cards_is_begun_anew(node: Node) -> None:
    node.places.cards_file.write_text("{")
    assert node.boot() == 0
    assert len(node.plan().cards) == 2
    assert any("begun anew" in text for text in node.plan().warnings)


def test_the_simulators_cards_are_forgotten_on_a_real_driver(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUWARDEN_NVML_LIBRARY", "/usr/lib/simulated.so")
    node.boot()
    assert node.plan().simulated
    monkeypatch.delenv("GPUWARDEN_NVML_LIBRARY")
    real = CardIdentity(0, "GPU-real", "NVIDIA A100", "0000:10:00.0", 0)
    node.driver = lambda: Listing("580.159.04", [real], [])
    node.boot()
    assert [card.uuid for card in node.plan().cards] == ["GPU-real"]
    assert not node.plan().simulated


def test_a_systemd_that_refuses_is_asked_again_next_time(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise SystemctlError("systemctl daemon-reload: Access denied")

    assert run(node.places, node.driver, refuse) == 1
    assert "Access denied" in caplog.text
    assert node.boot() == 0
    assert node.reloads == 1


def test_a_folder_that_is_not_there_is_an_error_that_names_it(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.places.plan_file.parent.rmdir()
    assert node.boot() == 1
    assert "run/gpuwarden" in caplog.text


def test_running_workers_keep_their_slice_and_have_another_revision(node: Node) -> None:
    node.boot()
    node.alive = Alive({0: 1, 1: 1}, frozenset({"medgemma-workers-gpu0.slice"}))
    slice_before = node.units()["medgemma-workers-gpu0.slice"]
    before = node.plan().workers
    node.configure('[placement]\nhousekeeping_cpus = "1"\n')
    node.boot()
    assert node.units()["medgemma-workers-gpu0.slice"] == slice_before
    assert "AllowedCPUs=0\n" in node.units()["medgemma-workers-gpu0b.slice"]
    worker = node.plan().workers[0]
    assert (worker.cpus, worker.slice) == ("0", "medgemma-workers-gpu0b.slice")
    assert worker.revision != before[0].revision
    assert worker.revised_monotonic_microseconds > before[0].revised_monotonic_microseconds == 0
    node.alive = Alive({0: worker.revised_monotonic_microseconds + 1})
    node.boot()
    assert "medgemma-workers-gpu0.slice" not in node.units()
    assert node.plan().workers == [worker, node.plan().workers[1]]


def test_the_rest_of_the_host_is_kept_away_on_request_and_let_go_again(node: Node) -> None:
    held = [
        f"{unit}.d/50-gpuwarden-housekeeping.conf"
        for unit in ("system.slice", "user.slice", "machine.slice", "init.scope")
    ]
    held.append("medgemma-control.slice.d/50-gpuwarden-housekeeping.conf")
    node.configure("[placement]\nhousekeeping_exclusive = true\nhousekeeping_cpus = '0'\n")
    node.boot()
    assert {path for path in node.units() if "housekeeping" in path} == set(held)
    for path in held:
        assert node.units()[path].endswith("AllowedCPUs=\nAllowedCPUs=0\n")
    assert "[Scope]" in node.units()["init.scope.d/50-gpuwarden-housekeeping.conf"]
    assert node.reloads == 1

    seen = []
    assert let_go(node.places, lambda: seen.append(node.units().get(held[0], ""))) == 0
    assert seen[0].endswith("AllowedCPUs=\nAllowedCPUs=0-3\n")
    assert seen[1:] == [""]
    assert not [path for path in node.units() if "housekeeping" in path]
    assert let_go(node.places, pytest.fail) == 0


def test_the_rest_of_the_host_is_let_go_when_that_is_switched_off(node: Node) -> None:
    node.configure("[placement]\nhousekeeping_exclusive = true\n")
    node.boot()
    assert any("housekeeping_exclusive without" in text for text in node.plan().warnings)
    node.configure("")
    node.boot()
    assert not [path for path in node.units() if "housekeeping" in path]
    assert not node.plan().housekeeping_exclusive


def test_a_card_that_the_kernel_cannot_place_is_placed_by_the_driver_and_that_is_said(
    node: Node,
) -> None:
    (node.places.sysfs / "bus/pci/devices/0000:80:00.0/numa_node").write_text("-1\n")
    lost = replace(TWO_CARDS[1], near_cpus="2-3")
    node.driver = lambda: Listing("580.159.04", [TWO_CARDS[0], lost], [])
    node.boot()
    assert (node.plan().cards[1].numa_node, node.plan().cards[1].numa_node_from) == (1, "driver")
    assert node.plan().workers[1].cpus == "2-3"
    assert node.plan().notes[0] == (
        "GPU 1: the kernel names no NUMA node for it; the driver calls CPUs 2-3 near: node 1"
    )


def test_a_card_that_nobody_can_place_is_not_pinned_and_that_is_said(node: Node) -> None:
    (node.places.sysfs / "bus/pci/devices/0000:80:00.0/numa_node").write_text("-1\n")
    node.boot()
    worker = node.plan().workers[1]
    assert (worker.cpus, worker.numa_node, worker.memory_policy) == ("", -1, "none")
    assert any("worker 1 is not pinned: neither" in text for text in node.plan().warnings)


def test_a_divided_card_shows_each_worker_its_instance(node: Node) -> None:
    divided = replace(TWO_CARDS[0], mig_uuids=("MIG-a", "MIG-b"))
    node.driver = lambda: Listing("580.159.04", [divided], [])
    node.configure("[workers]\nworkers_per_gpu = 2\n")
    node.boot()
    shown = [worker.visible_device for worker in node.plan().workers]
    assert shown == ["MIG-a", "MIG-b"]
    assert {worker.numa_node for worker in node.plan().workers} == {0}
    text = node.units()["medgemma-worker@1.service.d/50-placement.conf"]
    assert "Environment=CUDA_VISIBLE_DEVICES=MIG-b\n" in text
    assert "DeviceAllow=char-nvidia-caps r\n" in text
    node.configure("[workers]\nworkers_per_gpu = 3\n")
    node.boot()
    assert any("2 MIG instances for 3 workers" in text for text in node.plan().warnings)
