# SPDX-License-Identifier: Apache-2.0
"""Writes what makes shells complete ``gpuwarden``: python -m tools.completions FOLDER.

The shells ask the command itself (gpuwarden/cli/completion.py), so what is here never changes with
its arguments. The package build runs it.
"""

import sys
from pathlib import Path

from argcomplete.shell_integration import shellcode

COMMAND = "gpuwarden"
# Where each shell looks, below a package's root.
PLACES = {
    "bash": f"usr/share/bash-completion/completions/{COMMAND}",
    "zsh": f"usr/share/zsh/vendor-completions/_{COMMAND}",
    "fish": f"usr/share/fish/vendor_completions.d/{COMMAND}.fish",
}


def script(shell: str) -> str:
    """What ``shell`` is to read."""
    return shellcode([COMMAND], shell=shell, argcomplete_script=COMMAND).strip() + "\n"


def write(folder: Path) -> list[Path]:
    """One file a shell, by the place that it has in a package."""
    files = []
    for shell, place in PLACES.items():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script(shell))
        files.append(file)
    return files


if __name__ == "__main__":
    for written in write(Path(sys.argv[1])):
        print(written)
