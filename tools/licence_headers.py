# SPDX-License-Identifier: Apache-2.0
"""Puts the licence into the first line of each source file: python -m tools.licence_headers.

One line a file, in the form that tools read (SPDX). What is generated, data, and what another has
written are left alone. ``--check`` changes nothing, and exits with 1 and the names of the files
that lack it.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LICENCE = "SPDX-License-Identifier: Apache-2.0"
# How a line of comment begins, by the end of the file's name; and of programs by their first line.
HASH, SLASHES = "# ", "// "
COMMENTS = {
    ".py": HASH,
    ".sh": HASH,
    ".c": SLASHES,
    ".h": SLASHES,
}
PROGRAM = re.compile(r"#!.*\b(?:python3?|bash|sh|make)\b")
# Programs without an ending and, one of them, without a first line.
LAUNCHERS = "packaging/launchers/"
# Written by others, or by a program.
NOT_OURS = ("packaging/documentation/assets/", "tests/integration/data/", "tests/unit/data/")


def comment_of(path: Path, text: str) -> str:
    """How its comments begin; empty for what gets no header."""
    if path.as_posix().startswith(NOT_OURS) or not text.strip():
        return ""
    if path.suffix in COMMENTS:
        return COMMENTS[path.suffix]
    is_program = PROGRAM.match(text) or path.as_posix().startswith(LAUNCHERS)
    return HASH if is_program else ""


def with_header(text: str, comment: str) -> str:
    """The text with the licence: in its first line, or the second of a program."""
    line = f"{comment}{LICENCE}\n"
    if line in text.splitlines(keepends=True)[:2]:
        return text
    if not text.startswith("#!"):
        return line + text
    first, _, rest = text.partition("\n")
    return f"{first}\n{line}{rest}"


def tracked() -> list[Path]:
    """The files that git has, links left out."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = map(Path, filter(None, listed.split("\0")))
    return [path for path in paths if (ROOT / path).is_file() and not (ROOT / path).is_symlink()]


def sources() -> dict[Path, tuple[str, str]]:
    """Each file that should have the licence: as it is, and with it."""
    found = {}
    for path in tracked():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture, a recording
        if comment := comment_of(path, text):
            found[path] = text, with_header(text, comment)
    return found


def lacking() -> dict[Path, str]:
    """What each file would be that should have the licence and has not."""
    return {path: new for path, (text, new) in sources().items() if new != text}


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    is_check = parser.parse_args().check
    found = lacking()
    for path, text in found.items():
        if is_check:
            print(path)
        else:
            (ROOT / path).write_text(text, encoding="utf-8")
    print(f"{len(found)} files {'lack' if is_check else 'now have'} the licence", file=sys.stderr)
    return 1 if is_check and found else 0


if __name__ == "__main__":
    sys.exit(main())
