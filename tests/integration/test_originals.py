# SPDX-License-Identifier: Apache-2.0
"""What the administrator had set survives whatever happens to the guard, its files and its disk."""

import contextlib
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.systemd.events import Event
from gpuwarden.thermal.actuators import Options
from gpuwarden.thermal.card import GuardedCard
from gpuwarden.thermal.decision import UNTOUCHED, Settings
from tests.integration.guarded_cards import MEMORY_CLOCK_MHZ, ORIGINAL_WATTS, Bench, bench_on
from tests.integration.simulation import REPOSITORY, Node, running_node


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node") / "node", library, "H200", "T4") as running:
        yield running


@pytest.fixture
def bench(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with bench_on(node, tmp_path, monkeypatch) as made:
        yield made
    node.do("clear")
    node.do("reload-driver")


def apply(bench: Bench, card: GuardedCard, settings: Settings) -> list[Event]:
    return bench.take(card.apply(settings))


def test_originals_are_on_disk_before_the_card_is_touched(bench: Bench) -> None:
    bench.guard()
    found = json.loads(bench.file.read_text())
    assert found["original_milliwatts"] == 700_000
    assert (found["ours_milliwatts"], found["next_milliwatts"]) == (None, None)
    assert bench.file.stat().st_mode & 0o777 == 0o600
    assert bench.run_file.read_bytes() == bench.file.read_bytes()


def test_a_clean_end_puts_everything_back_and_leaves_no_file(bench: Bench) -> None:
    card = bench.guard(Options(memory_clock_lock=True))
    apply(bench, card, Settings(400, 600, MEMORY_CLOCK_MHZ))
    assert bench.take(card.restore())[-1] is Event.THERMAL_RESTORED
    card.close()
    assert (bench.limit_watts, bench.sm_lock_mhz) == (ORIGINAL_WATTS, None)
    assert bench.memory_lock_mhz is None
    assert list(bench.places.disk.iterdir()) == []
    assert list(bench.places.run.iterdir()) == []
    assert bench.of(Event.THERMAL_RESTORED) == [
        "GPU 0: its settings are as they were found, limit 700 W"
    ]


def test_a_guard_that_was_killed_goes_on_from_the_file(bench: Bench) -> None:
    apply(bench, bench.guard(), Settings(400, 600))
    card = bench.guard()
    assert card.original_watts == ORIGINAL_WATTS
    assert card.authority().original_watts == ORIGINAL_WATTS
    assert bench.limit_watts == 400
    assert bench.of(Event.THERMAL_ORIGINALS) == [
        "GPU 0: its limit of 400 W is this guard's: 700 W comes back"
    ]
    apply(bench, card, UNTOUCHED)
    assert (bench.limit_watts, bench.sm_lock_mhz) == (ORIGINAL_WATTS, None)


def test_a_limit_set_while_no_guard_ran_is_the_original(bench: Bench) -> None:
    apply(bench, bench.guard(), Settings(400))
    bench.hurt("external-limit=380")
    card = bench.guard()
    assert card.original_watts == 380
    assert "380 W (original 700 W)" in bench.of(Event.THERMAL_OUTSIDE_CHANGE)[0]
    apply(bench, card, UNTOUCHED)
    bench.take(card.restore())
    assert bench.limit_watts == 380


def test_a_hot_card_keeps_its_limit_at_the_end_and_the_next_guard_knows_it(bench: Bench) -> None:
    card = bench.guard()
    apply(bench, card, Settings(400, 600))
    (told,) = card.restore(keep_safe=True)
    assert (told.event, told.level) == (Event.THERMAL_RESTORED, logging.WARNING)
    assert "it keeps 400 W" in told.message
    assert (bench.limit_watts, bench.sm_lock_mhz) == (400, [345, 600])
    assert bench.guard().original_watts == ORIGINAL_WATTS


def test_a_hot_card_that_was_left_alone_has_nothing_to_keep(bench: Bench) -> None:
    card = bench.guard()
    assert bench.take(card.restore(keep_safe=True)) == [Event.THERMAL_RESTORED]
    assert not bench.file.exists()


def test_a_permission_that_is_lost_keeps_the_file_until_all_is_back(bench: Bench) -> None:
    card = bench.guard()
    apply(bench, card, Settings(400, 600))
    bench.hurt("no-permission")
    told = card.restore()
    assert told[-1].level == logging.ERROR
    assert (
        f"nvidia-smi -i {bench.uuid} -pl 700; nvidia-smi -i {bench.uuid} -rgc" in told[-1].message
    )
    assert bench.file.exists()
    bench.node.do("clear")
    next_life = bench.guard()
    bench.take(next_life.restore())
    assert (bench.limit_watts, bench.sm_lock_mhz) == (ORIGINAL_WATTS, None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the originals, small enough to be filled."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)], check=True
    )
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="No space left"):
            while True:
                os.write(descriptor, b"x" * 4096)
    finally:
        os.close(descriptor)
    return ballast


def test_a_full_disk_does_not_stop_the_cooling_and_a_kill_loses_nothing(
    bench: Bench, small_disk: Path
) -> None:
    bench.places = type(bench.places)(small_disk, bench.places.run)
    ballast = fill(small_disk)
    card = bench.guard()
    (told,) = bench.of(Event.THERMAL_ORIGINALS)
    assert "No space left on device" in told
    assert "cooled all the same" in told
    apply(bench, card, Settings(400))
    assert bench.limit_watts == 400
    assert not bench.file.exists()
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]
    card = bench.guard()
    assert card.original_watts == ORIGINAL_WATTS
    ballast.unlink()
    apply(bench, card, Settings(410))
    assert bench.of(Event.THERMAL_ORIGINALS)[-1] == "GPU 0: its original settings are on disk again"
    bench.take(card.restore())
    assert bench.limit_watts == ORIGINAL_WATTS


def test_a_disk_that_cannot_be_written_at_all_keeps_the_original_in_memory(bench: Bench) -> None:
    for place in (bench.places.disk, bench.places.run):
        place.write_text("a file where a folder should be")
    card = bench.guard()
    assert "can't be written" in bench.of(Event.THERMAL_ORIGINALS)[0]
    apply(bench, card, Settings(400))
    assert bench.limit_watts == 400
    bench.take(card.restore())
    assert bench.limit_watts == ORIGINAL_WATTS


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": 2}', b"x" * 70_000]
)
def test_a_torn_file_is_set_aside_and_the_other_copy_holds(bench: Bench, content: bytes) -> None:
    apply(bench, bench.guard(), Settings(400))
    bench.file.write_bytes(content)
    card = bench.guard()
    assert card.original_watts == ORIGINAL_WATTS
    (told,) = bench.of(Event.THERMAL_ORIGINALS_SET_ASIDE)
    (kept,) = bench.places.disk.glob("*.set-aside-*.json")
    assert kept.name in told
    assert kept.read_bytes() == content
    bench.take(card.restore())
    assert bench.limit_watts == ORIGINAL_WATTS


def test_a_file_of_another_card_is_not_believed(bench: Bench) -> None:
    apply(bench, bench.guard(), Settings(400))
    record = bench.file.read_text()
    for path in (bench.file, bench.run_file):
        path.write_text(record.replace(bench.uuid, "GPU-of-somebody-else"))
    card = bench.guard()
    assert "checksum" in bench.of(Event.THERMAL_ORIGINALS_SET_ASIDE)[0]
    assert card.original_watts == 400


def test_two_torn_copies_never_raise_the_limit_and_that_is_said(bench: Bench) -> None:
    apply(bench, bench.guard(), Settings(400))
    for path in (bench.file, bench.run_file):
        path.write_bytes(path.read_bytes()[:100])
    card = bench.guard()
    assert card.original_watts == 400
    (told,) = [each for each in bench.told if each.level == logging.ERROR]
    assert told.event is Event.THERMAL_ORIGINALS_SET_ASIDE
    assert "its original limit is not known" in told.message
    bench.take(card.restore())
    assert bench.limit_watts == 400


def test_few_torn_files_are_kept(bench: Bench) -> None:
    for _ in range(7):
        bench.guard()
        bench.file.write_bytes(b"torn")
    bench.guard()
    assert len(list(bench.places.disk.glob("*.set-aside-*.json"))) == 4


def test_a_record_of_another_boot_is_archived_and_the_limit_that_is_there_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(bench, bench.guard(), Settings(400))
    monkeypatch.setattr("gpuwarden.thermal.card.boot_id", lambda: "the boot after")
    bench.run_file.unlink()  # it lies in memory
    bench.node.do("reload-driver")
    card = bench.guard()
    assert card.original_watts == ORIGINAL_WATTS
    assert len(list(bench.places.disk.glob("*.archived-*.json"))) == 1
    assert "another boot" in bench.of(Event.THERMAL_ORIGINALS)[0]


LIVES = """\
import itertools, sys
from pathlib import Path
from gpuwarden.nvml.library import Library
from gpuwarden.thermal.card import GuardedCard
from gpuwarden.thermal.decision import Settings
from gpuwarden.thermal.originals_store import Places
folder = Path(sys.argv[1])
library = Library(sys.argv[2], simulated=True)
card = GuardedCard(0, folder / "plan.json", library, places=Places(folder / "disk", folder / "run"))
card.look()
print("ready", flush=True)
for watts in itertools.cycle((250, 390, 480, 700)):
    card.apply(Settings(power_limit_watts=watts, sm_clock_mhz=watts + 400))
"""


def test_a_guard_that_is_killed_over_and_over_leaves_the_original(bench: Bench) -> None:
    moments = random.Random(3)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", LIVES, str(bench.folder), str(bench.node.library)],
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, 0.05))
        process.kill()
        process.wait()
        process.stdout.close()
        card = bench.guard()
        assert card.original_watts == ORIGINAL_WATTS
    bench.take(card.restore())
    assert (bench.limit_watts, bench.sm_lock_mhz) == (ORIGINAL_WATTS, None)
    assert not bench.file.exists()
    assert bench.of(Event.THERMAL_OUTSIDE_CHANGE) == []
