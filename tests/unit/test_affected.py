# SPDX-License-Identifier: Apache-2.0
"""What the dev loop leaves out has run with the same bytes."""

from pathlib import Path

import pytest

from tools.affected import Tree, look_at, reach, read

FILES = {
    "gpuwarden/__init__.py": "",
    "gpuwarden/values.py": "ZERO = 0\n",
    "gpuwarden/policy.py": "from gpuwarden.values import ZERO\n",
    "gpuwarden/cli/__init__.py": "",
    "gpuwarden/cli/main.py": "from importlib import import_module\nimport_module('status')\n",
    "gpuwarden/cli/status.py": "from gpuwarden import values\n",
    "gpuwarden/alone.py": "",
    "gpuwarden/named.py": "",
    "tests/conftest.py": "import gpuwarden\nimport tests.events\n",
    "tests/events.py": "from pathlib import Path\nHERE = Path(__file__)\n",
    "tests/unit/test_policy.py": "def test():\n    import gpuwarden.policy\n    'gpuwarden.named'",
    "tests/unit/test_data.py": 'STEPS = Path(__file__).parent / "data" / "steps.csv"\n',
    "tests/unit/data/steps.csv": "",
    "tests/unit/test_cli.py": "from gpuwarden.cli.main import x\n",
    "tests/unit/test_files.py": "from pathlib import Path\nHERE = Path(__file__)\n",
    "packaging/catalog/gpuwarden.catalog": "",
    "pyproject.toml": "",
    "README.md": "",
}
ALL = {name for name in FILES if "/test_" in name}


def touched(name: str) -> set[str]:
    """The test files that a change of ``name`` would run again."""
    before = Tree({each: read(each, text.encode()) for each, text in FILES.items()})
    changed = FILES | {name: FILES.get(name, "") + "\n# changed\n"}
    after = Tree({each: read(each, text.encode()) for each, text in changed.items()})
    return {each for each in ALL if before.fingerprint(each) != after.fingerprint(each)}


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        ("gpuwarden/policy.py", {"policy", "files"}),
        ("gpuwarden/alone.py", {"files"}),
        ("tests/unit/test_policy.py", {"policy", "files"}),
        ("README.md", {"files"}),
        ("tests/unit/data/steps.csv", {"data", "files"}),
        ("gpuwarden/new.py", {"files"}),
    ],
)
def test_a_change_runs_what_imports_it_and_what_reads_files(changed: str, tests: set[str]) -> None:
    assert touched(changed) == {f"tests/unit/test_{name}.py" for name in tests}


def test_imports_are_followed_through_others_and_into_functions() -> None:
    assert "tests/unit/test_policy.py" in touched("gpuwarden/values.py")


def test_a_test_that_starts_python_may_read_anything() -> None:
    program = 'import subprocess, sys\nsubprocess.run([sys.executable, "-m", "gpuwarden.cli"])\n'
    assert reach(program) == "all"
    assert reach('import subprocess\nsubprocess.Popen(["sleep", "1000"])\n') == "none"


def test_a_module_that_is_only_named_counts() -> None:
    assert "tests/unit/test_policy.py" in touched("gpuwarden/named.py")


def test_what_is_imported_by_a_computed_name_is_all_of_the_package() -> None:
    assert "tests/unit/test_cli.py" in touched("gpuwarden/cli/status.py")
    assert "tests/unit/test_cli.py" in touched("gpuwarden/values.py")  # through the command


@pytest.mark.parametrize(
    "changed",
    [
        "gpuwarden/__init__.py",
        "tests/conftest.py",
        "tests/events.py",
        "packaging/catalog/gpuwarden.catalog",
        "pyproject.toml",
    ],
)
def test_what_every_test_needs_touches_all(changed: str) -> None:
    assert touched(changed) == ALL


def test_a_file_that_was_changed_is_read_again_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import gpuwarden.values\n")
    (tmp_path / "b.py").write_text("")
    cache = tmp_path / "cache.json"
    first = look_at(tmp_path, ["a.py", "b.py"], cache)
    assert look_at(tmp_path, ["a.py", "b.py"], cache) == first
    (tmp_path / "a.py").write_text("import gpuwarden.policy\n")
    again = look_at(tmp_path, ["a.py", "b.py"], cache)
    assert again["a.py"].imported == ("gpuwarden.policy",)
    assert again["b.py"] == first["b.py"]
