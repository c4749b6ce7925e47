# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.build_packages import ROOT, make
from tools.build_vendor import PYTHONS
from tools.completions import PLACES
from tools.manual.__main__ import pages

# Every distribution with compiled parts that differ by Python; psutil's serve all of them.
COMPILED = ("aiohttp", "frozenlist", "multidict", "propcache", "pydantic_core", "yarl")
# The daemons' own imports of third parties, as the launchers make them.
IMPORTS = "aiohttp.web, argcomplete, dbus_next.aio, psutil, pydantic, pynvml, sdnotify, textual.app"


def files_of(package: Path) -> dict[str, str]:
    """Path to mode of every file and folder of a package."""
    listing = subprocess.run(
        ["dpkg-deb", "-c", str(package)], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 5) for line in listing.splitlines()]
    assert all(row[1] == "root/root" for row in rows)
    return {row[5].removeprefix("."): row[0] for row in rows}


@pytest.fixture(scope="session")
def packages() -> dict[str, Path]:
    built = make(ROOT / "dist", ROOT / "build" / "package")
    return {path.name.split("_")[0]: path for path in built}


@pytest.fixture(scope="session")
def unpacked(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "-x", packages["gpuwarden"], folder], check=True)
    return folder


def test_another_folder_umask_timezone_and_language_give_the_same_bytes(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    environment = {**os.environ, "TZ": "Asia/Kathmandu", "LANG": "C", "LC_ALL": "POSIX"}
    subprocess.run(
        [
            sys.executable,
            "-m",
            "tools.build_packages",
            "--dist",
            tmp_path,
            "--work",
            tmp_path / "w",
        ],
        cwd=ROOT,
        env=environment,
        umask=0o077,
        check=True,
        timeout=300,
    )

    again = {path.name.split("_")[0]: path for path in tmp_path.glob("*.deb")}
    assert again.keys() == packages.keys()
    for name, path in packages.items():
        first, second = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, again[name]))
        assert first == second, f"{path} and {again[name]} differ: compare them with diffoscope"


def test_nothing_is_built_again_while_the_inputs_stay(packages: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in packages.values()}

    make(ROOT / "dist", ROOT / "build" / "package")

    assert {path: path.stat().st_mtime_ns for path in packages.values()} == before


def test_lintian_finds_no_error_and_no_warning(packages: dict[str, Path]) -> None:
    done = subprocess.run(
        ["lintian", "--fail-on", "error,warning", *map(str, packages.values())],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_lintian_override_has_its_reason_above() -> None:
    overrides = sorted((ROOT / "packaging" / "debian").glob("*.lintian-overrides"))

    assert overrides
    for path in overrides:
        previous = ""
        for line in path.read_text().splitlines():
            assert line.startswith("#") or previous, f"{path.name}: no reason above {line}"
            previous = line


def test_simulator_lies_in_its_own_package_alone(packages: dict[str, Path]) -> None:
    main, simulator = (files_of(packages[name]) for name in ("gpuwarden", "gpuwarden-simulator"))
    shared = {path for path in main.keys() & simulator.keys() if not path.endswith("/")}

    assert not shared
    assert not [
        path for path in main if re.search(r"simulator/|gpuwarden-sim(?!ulate)|libnvidia", path)
    ]
    assert "/usr/lib/gpuwarden/simulator/libnvidia-ml.so.1" in simulator
    assert "/usr/bin/gpuwarden-sim" in simulator
    assert not [path for path in simulator if path.endswith((".c", ".h", "Makefile"))]


def test_what_monitoring_needs_is_where_the_documentation_says(packages: dict[str, Path]) -> None:
    files = files_of(packages["gpuwarden"])

    assert "/usr/share/gpuwarden/prometheus/gpuwarden.rules.yml" in files
    assert "/usr/share/gpuwarden/grafana/gpuwarden.json" in files


def test_units_lie_below_usr_and_no_file_is_writable_by_others(packages: dict[str, Path]) -> None:
    for package in packages.values():
        files = files_of(package)
        assert not [path for path in files if path.startswith("/lib/")]
        assert not [path for path, mode in files.items() if mode[5] == "w" or mode[8] == "w"]
        assert not [path for path, mode in files.items() if set(mode) & set("sStT")]


def test_manual_pages_and_completions_lie_where_they_are_looked_for(
    packages: dict[str, Path],
) -> None:
    main, simulator = (files_of(packages[name]) for name in ("gpuwarden", "gpuwarden-simulator"))
    expected = {page.file_name for page in pages()} - {"gpuwarden-sim.service.8"}
    for name in expected:
        assert f"/usr/share/man/man{name[-1]}/{name}.gz" in main, name
    for place in PLACES.values():
        assert f"/{place}" in main
    assert "/usr/share/man/man1/gpuwarden-sim.1.gz" in simulator
    assert "/usr/share/man/man8/gpuwarden-sim.service.8.gz" in simulator


def test_each_compiled_dependency_serves_each_python(packages: dict[str, Path]) -> None:
    modules = [path for path in files_of(packages["gpuwarden"]) if path.endswith(".so")]

    for name in COMPILED:
        served = {
            match[1]
            for path in modules
            if f"/vendor/{name}/" in path and (match := re.search(r"\.cpython-(\d+)-", path))
        }
        assert served == {python.replace(".", "") for python in PYTHONS}, name
    others = [p for p in modules if not re.search(r"\.cpython-\d+-", p) and "/simulator/" not in p]
    assert all(path.endswith(".abi3.so") for path in others), others


def test_dependencies_import_from_the_package_alone(unpacked: Path) -> None:
    library = unpacked / "usr" / "lib" / "gpuwarden"
    program = (
        f"import sys; sys.path += [{str(library / 'app')!r}, {str(library / 'vendor')!r}]\n"
        f"import gpuwarden, {IMPORTS}\n"
        "modules = [m for m in sys.modules.values() if getattr(m, '__file__', None)]\n"
        "print(*sorted(m.__file__ for m in modules), sep='\\n')\n"
    )

    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    foreign = [path for path in done.stdout.split() if "-packages/" in path]
    assert not foreign
    assert str(library / "vendor" / "aiohttp" / "web.py") in done.stdout
