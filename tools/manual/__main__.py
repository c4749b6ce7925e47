# SPDX-License-Identifier: Apache-2.0
"""Writes every page into a folder: python -m tools.manual FOLDER. The package build runs it."""

import re
import sys
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

from gpuwarden import __version__
from tools.manual import bus, commands, configuration, units
from tools.manual.roff import Page

ROOT = Path(__file__).resolve().parents[2]


def pages() -> Iterator[Page]:
    """All of them; gpuwarden-sim(1) is written by hand, in packaging/man."""
    date = release_date()
    for module in (commands, configuration, bus, units):
        yield from module.pages(date, __version__)


def release_date() -> str:
    """Of the last entry of Debian's changelog: the same sources give the same pages."""
    changelog = (ROOT / "packaging" / "debian" / "changelog").read_text()
    (entry, *_) = re.findall(r"^ -- .*>  (.*)$", changelog, re.MULTILINE)
    return f"{parsedate_to_datetime(entry).astimezone(UTC):%Y-%m-%d}"


def write(folder: Path) -> list[Path]:
    """One file a page."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for page in pages():
        file = folder / page.file_name
        file.write_text(page.text, encoding="ascii")
        files.append(file)
    return files


if __name__ == "__main__":
    print(f"{len(write(Path(sys.argv[1])))} pages")
