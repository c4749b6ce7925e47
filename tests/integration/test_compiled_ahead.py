# SPDX-License-Identifier: Apache-2.0
"""What an installation does not compile ahead is what none of our programs imports."""

import re
import subprocess
import sys
from pathlib import Path

BYTE_COMPILE = Path(__file__).parents[2] / "packaging/launchers/byte-compile"
# The engines are the site's to import; a module named __main__ runs.
IMPORT_ALL = """
import importlib, pkgutil, sys, gpuwarden
for found in pkgutil.walk_packages(gpuwarden.__path__, "gpuwarden."):
    if not found.name.endswith(".__main__") and ".worker.engines." not in found.name:
        importlib.import_module(found.name)
print(*(module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)))
"""


def never_imported() -> "re.Pattern[str]":
    """Which paths the packages leave out."""
    (pattern,) = re.findall(r"^never='(.*)'$", BYTE_COMPILE.read_text(), re.MULTILINE)
    return re.compile(pattern)


def test_none_of_our_modules_imports_what_is_not_compiled() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True
    )
    imported = finished.stdout.split()
    assert any("/textual/app.py" in path for path in imported)
    assert [path for path in imported if never_imported().search(path)] == []
