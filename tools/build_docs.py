# SPDX-License-Identifier: Apache-2.0
"""Builds the documentation as pages: python -m tools.build_docs [FOLDER].

MkDocs Material makes them from ``docs`` by ``mkdocs.yml``, strictly: a link or an anchor that leads
nowhere, or a page that no menu has, ends it. They open from a disk, without network and server; the
same sources give the same bytes. Exit 1 with what is wrong.
"""

import argparse
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"
# What decides how pages look beside their sources.
MAKERS = ("markdown", "mkdocs", "mkdocs-material", "pygments", "pymdown-extensions")
# Stemmers of languages that no page is in, maps for debugging the theme, and a map of the site that
# needs an address (and has the time of the build in its head).
UNUSED = ("assets/javascripts/lunr", "assets/**/*.map", "sitemap.xml*")
BUILD_TIMEOUT_SECONDS = 120
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "SOURCE_DATE_EPOCH": "0",
    # The theme prints a word about its successor with each build.
    "NO_MKDOCS_2_WARNING": "1",
}


class DocumentationError(Exception):
    """The pages can't be built; the message says why."""


def makers() -> str:
    """Names and versions of what makes the pages, for whoever keeps results."""
    return " ".join(f"{name}=={version(name)}" for name in MAKERS)


def build_docs(source: Path, folder: Path) -> None:
    """Makes the pages of the tree ``source`` in ``folder``, in place of what is there.

    Raises ``DocumentationError`` with all that MkDocs warns of.
    """
    # Not --quiet: warnings that aren't said aren't counted either, and nothing is strict any more.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    command += ["--config-file", str(source / "mkdocs.yml"), "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=source,
        env=ENVIRONMENT,
        umask=0o022,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BUILD_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise DocumentationError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
    for pattern in UNUSED:
        for path in sorted(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> int:
    """Builds the pages and says where they lie."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SITE, help="where the pages go")
    folder = parser.parse_args().folder.resolve()
    started = time.monotonic()
    try:
        build_docs(ROOT, folder)
    except DocumentationError as error:
        print(f"build-docs: {error}", file=sys.stderr)
        return 1
    print(f"built in {time.monotonic() - started:.1f} s: file://{folder}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
