# SPDX-License-Identifier: Apache-2.0
"""Whether code can be compiled and run in this process: tried once at load, in a tenth of a second.

torch's compiler builds with the node's C compiler and loads what came of it from a folder. Where
one of the two is missing it says so in the middle of a long traceback, minutes later.
"""

import ctypes
import os
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Mapping, Optional

from gpuwarden.worker.engines.transformers.folder import ModelError
from gpuwarden.worker.engines.transformers.options import EngineOptions

FOLDER = "TORCHINDUCTOR_CACHE_DIR"
TRIAL = "#include <Python.h>\nint gpuwarden(void) { return 42; }\n"
ANSWER = 42
SECONDS = 60.0  # a compiler on a cold disk
PACKAGES = "gcc, libc6-dev and, for Debian's own Python, python3-dev"


def trouble(environment: Mapping[str, str], headers: Optional[Path] = None) -> str:
    """Why nothing can be compiled here, and what would do; empty where it can be.

    :param environment: PATH, and CC and the folder's variable where they are set.
    :param headers: of the interpreter, as the compiler of torch takes them.
    """
    # As Triton looks for it: CC, then gcc, then clang.
    path = environment.get("PATH")
    compiler = environment.get("CC") or shutil.which("gcc", path=path)
    compiler = compiler or shutil.which("clang", path=path)
    if compiler is None:
        return f"there is no C compiler in PATH ({path}): install {PACKAGES}, or name one in CC"
    headers = headers or Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").is_file():
        return (
            f"{headers} has no Python.h: install the headers of this interpreter (Debian's own:"
            " python3-dev), or take one that has them (conda's)"
        )
    place = Path(environment.get(FOLDER) or tempfile.gettempdir())
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="trial-", dir=place) as folder:
            return _tried(compiler, headers, Path(folder))
    except OSError as error:
        return f"nothing can be written to {place} ({FOLDER}): {error.strerror or error}"


def settled(options: EngineOptions, why_not: str) -> EngineOptions:
    """The options with ``auto`` decided. Raises ModelError where it was asked for and can't be.

    :param why_not: what :func:`trouble` says.
    """
    if options.compile == "auto":
        if why_not:
            return replace(options, compile="none", one_row_kernel=False)
        return replace(options, compile="all")
    if why_not and options.compile != "none":
        raise ModelError(
            f"option compile is {options.compile}, but {why_not}; or leave it out: then steps run"
            " uncompiled, slower"
        )
    return replace(options, one_row_kernel=options.one_row_kernel and not why_not)


def _tried(compiler: str, headers: Path, folder: Path) -> str:
    source, library = folder / "trial.c", folder / "trial.so"
    source.write_text(TRIAL, encoding="ascii")
    command = [compiler, str(source), "-shared", "-fPIC", f"-I{headers}", "-o", str(library)]
    try:
        made = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the C compiler {compiler} can't be run: {error}"
    if made.returncode:
        lines = [line for line in made.stderr.splitlines() if "error" in line] or ["no word"]
        return f"the C compiler {compiler} fails ({lines[0].strip()}): install {PACKAGES}"
    try:
        answer = ctypes.CDLL(str(library)).gpuwarden()
    except (OSError, AttributeError) as error:
        return (
            f"what is compiled into {folder.parent} can't be run ({error}): it may be mounted"
            f" noexec; name another folder in {FOLDER}"
        )
    return "" if answer == ANSWER else f"what {compiler} makes does not run as it should"
