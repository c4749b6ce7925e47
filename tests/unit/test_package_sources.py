# SPDX-License-Identifier: Apache-2.0
import ast
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

import gpuwarden
from tools.build_packages import PACKAGES
from tools.build_vendor import read_lock

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "packaging" / "debian"
LAUNCHERS = ROOT / "packaging" / "launchers"


def installed() -> dict[str, str]:
    lines = [
        line.split()
        for package in PACKAGES
        for line in (DEBIAN / f"{package}.install").read_text().splitlines()
    ]
    return dict(lines)


def test_changelog_and_program_agree_on_the_version() -> None:
    changelog = (DEBIAN / "changelog").read_text()

    assert changelog.startswith(f"gpuwarden ({gpuwarden.__version__}) ")
    assert f"## {gpuwarden.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_copyright_file_names_every_dependency() -> None:
    copyrights = (DEBIAN / "copyright").read_text()
    locked = read_lock((ROOT / "requirements" / "runtime.txt").read_text())

    assert len(locked) > 10
    for requirement in locked:
        assert f"vendor/site/{requirement.name.replace('-', '_')}-*" in copyrights


def test_every_file_of_the_page_in_cockpit_is_in_its_package() -> None:
    patterns = [
        Path(source).name for source in installed() if source.startswith("packaging/cockpit")
    ]
    files = sorted((ROOT / "packaging" / "cockpit").iterdir())

    assert len(files) > 10
    for path in files:
        assert any(path.match(pattern) for pattern in patterns), path.name


@pytest.mark.parametrize("unit", sorted((ROOT / "packaging" / "systemd").glob("*.service")))
def test_programs_that_a_unit_starts_are_in_a_package(unit: Path) -> None:
    programs = re.findall(r"^Exec\w+=\W*/usr/(\S+)/([\w-]+)", unit.read_text(), re.M)

    for folder, name in programs:
        assert installed()[f"packaging/launchers/{name}"] == f"usr/{folder}"


def imported_modules(launcher: Path) -> set[str]:
    tree = ast.parse(launcher.read_text())
    imports = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    names = {str(name) for name in imports | texts}
    return {name for name in names if re.fullmatch(r"gpuwarden(\.\w+)+", name)}


PYTHON_LAUNCHERS = (
    "gpuwarden",
    "gpuwarden-daemon",
    "gpuwarden-sim",
    "gpuwarden-sim-daemon",
    "worker-host",
    "worker-launch",
)


@pytest.mark.parametrize("name", PYTHON_LAUNCHERS)
def test_modules_that_a_launcher_runs_exist_and_have_a_main(name: str) -> None:
    modules = imported_modules(LAUNCHERS / name)

    assert modules
    for module in modules:
        specification = find_spec(module)
        assert specification, f"{name} runs {module}, which does not exist"
        tree = ast.parse(Path(str(specification.origin)).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert "main" in functions, f"{module} has no main()"


def test_launchers_keep_the_environment_and_site_packages_out() -> None:
    for name in set(PYTHON_LAUNCHERS) - {"worker-host"}:  # that one the site's Python runs
        assert (LAUNCHERS / name).read_text().startswith("#!/usr/bin/python3 -IS\n")


def test_the_command_finds_debians_pillow_after_everything_of_its_own() -> None:
    paths, _ = (LAUNCHERS / "gpuwarden").read_text().split("from gpuwarden.cli.main")
    shown = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", f"{paths}\nprint(*sys.path[-3:])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.split() == [
        "/usr/lib/gpuwarden/app",
        "/usr/lib/gpuwarden/vendor",
        "/usr/lib/python3/dist-packages",
    ]
