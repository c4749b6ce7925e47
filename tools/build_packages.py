# SPDX-License-Identifier: Apache-2.0
"""Builds the .debs of the working tree into ``dist``: python -m tools.build_packages.

Stages the files that git tracks, as they are in the working tree, in a clean folder, with the
merged Python dependencies, the documentation's pages, the manual pages and the shells' completions
beside them, and runs ``dpkg-buildpackage`` there. The same inputs give the same bytes wherever and
by whomever they are built, so nothing is built again while the inputs stay.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tools.build_docs import DocumentationError, build_docs, makers
from tools.build_vendor import VendorError, build_vendor

ROOT = Path(__file__).resolve().parent.parent
# What a package is made of; a change elsewhere builds nothing again.
INPUTS = (
    *("gpuwarden", "packaging", "docs", "mkdocs.yml"),
    *("requirements/runtime.txt", "README.md", "LICENSE"),
)
PACKAGES = ("cockpit-gpuwarden", "gpuwarden", "gpuwarden-simulator")
TOOLS = (
    *("tools/build_packages.py", "tools/build_vendor.py", "tools/build_docs.py"),
    "tools/completions.py",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "tools" / "manual").glob("*.py"))),
)
BUILD_TIMEOUT_SECONDS = 300
# All that the build sees of its caller: nothing, or the bytes would depend on who builds.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "DEB_BUILD_OPTIONS": "parallel=2 nocheck",
}


class BuildError(Exception):
    """The packages can't be built; the message says why."""


def run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Runs ``command`` in ``folder`` and returns what it printed; ``BuildError`` on failure."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BUILD_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed: run tools/prepare-host") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
    return done.stdout


def git_files(*options: str) -> list[str]:
    """Paths of the package's inputs that ``git ls-files`` names, sorted."""
    # Whoever runs this owns the decision to build from this folder, whoever owns the folder.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", *options, "--", *INPUTS]
    return sorted(filter(None, run(command, ROOT).split("\0")))


def inputs() -> list[Path]:
    """The tracked files that a package is made of; says which untracked ones stay out."""
    if untracked := git_files("--others", "--exclude-standard"):
        print(f"not in the packages, unknown to git: {', '.join(untracked)}", file=sys.stderr)
    return [Path(name) for name in git_files() if (ROOT / name).is_file()]


def fingerprint(files: list[Path]) -> str:
    """A hash over names, modes and contents of everything that decides the result."""
    total = hashlib.sha256(makers().encode())
    for path in (*files, *map(Path, TOOLS)):
        content = (ROOT / path).read_bytes()
        executable = os.access(ROOT / path, os.X_OK)
        total.update(f"{path}\0{executable}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def stage(files: list[Path], vendor: Path, folder: Path) -> None:
    """Fills ``folder`` with a source tree whose modes don't depend on the caller's umask."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
        target.chmod(0o755 if os.access(ROOT / path, os.X_OK) else 0o644)
    shutil.copytree(folder / "packaging" / "debian", folder / "debian")
    for part in ("site", "third-party"):
        shutil.copytree(vendor / part, folder / "vendor" / part)
    # From the working tree itself, which is what is staged: with the build's own umask.
    for tool, part in (("tools.completions", "completions"), ("tools.manual", "man")):
        run([sys.executable, "-m", tool, str(folder / "generated" / part)], ROOT)
    for made in (folder / "generated").rglob("*"):
        made.chmod(0o755 if made.is_dir() else 0o644)
    build_docs(folder, folder / "html")


def build_packages(files: list[Path], vendor: Path, folder: Path) -> list[Path]:
    """Builds in ``folder``/source and returns ``PACKAGES``, which lie in ``folder``."""
    stage(files, vendor, folder / "source")
    for old in folder.glob("*.deb"):
        old.unlink()
    run(["dpkg-buildpackage", "-us", "-uc", "-b"], folder / "source", ENVIRONMENT)
    packages = sorted(folder.glob("*.deb"))
    if not complete(packages):
        raise BuildError(f"expected {PACKAGES}, got {[path.name for path in packages]}")
    return packages


def complete(packages: list[Path]) -> bool:
    """Whether each of ``PACKAGES`` is there, and nothing else."""
    return sorted(path.name.split("_")[0] for path in packages) == sorted(PACKAGES)


def publish(packages: list[Path], dist: Path, stamp: str) -> list[Path]:
    """Moves the packages to ``dist`` in place of the former ones, the stamp last."""
    dist.mkdir(exist_ok=True)
    for old in (dist / "stamp", *dist.glob("*gpuwarden*.deb")):
        old.unlink(missing_ok=True)
    published = [path.rename(dist / path.name) for path in packages]
    (dist / "stamp").write_text(stamp)
    return published


def make(dist: Path, work: Path) -> list[Path]:
    """The packages of the working tree in ``dist``, built in ``work`` unless they lie there."""
    files = inputs()
    stamp = fingerprint(files)
    present = sorted(dist.glob("*gpuwarden*.deb"))
    if complete(present) and (dist / "stamp").is_file() and (dist / "stamp").read_text() == stamp:
        return present
    vendor = build_vendor(ROOT / "requirements" / "runtime.txt", ROOT / "build" / "vendor")
    started = time.monotonic()
    packages = publish(build_packages(files, vendor, work), dist, stamp)
    print(f"built in {time.monotonic() - started:.1f} s")
    return packages


def main() -> int:
    """Builds what has changed and lists the packages with their sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where the .debs go")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "package", help="scratch")
    arguments = parser.parse_args()
    try:
        for path in make(arguments.dist, arguments.work):
            print(f"{path.stat().st_size / 1e6:6.2f} MB  {path}")
    except (BuildError, DocumentationError, VendorError) as error:
        print(f"build-packages: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
