# SPDX-License-Identifier: Apache-2.0
"""Merges the locked wheels of all supported CPythons: python -m tools.build_vendor.

The result lies in ``build/vendor/merged``: ``site`` goes on ``sys.path`` (extension modules carry
their ABI in their name, so they stand side by side), ``third-party`` holds each distribution's
licence and bill of materials. The network is used for the download alone, which the lock's hashes
check and ``build/vendor/wheels`` keeps. Exit 1 with a message when the lock, the wheels of two
Pythons or two files disagree.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13")  # Debian 12, Ubuntu 24.04, Debian 13
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
SOURCE_ONLY = frozenset({"sdnotify"})  # no wheel is published

# Sources, stubs and tests that nothing imports, and each wheel's own list of files.
UNUSED = re.compile(
    r"\.(pyx|pxd|pxi|c|h|pyi)$|/_?tests?/|/\.hash/|^example\.py$"
    r"|\.dist-info/(RECORD|WHEEL|INSTALLER|top_level\.txt|entry_points\.txt)$"
)
LICENCE = re.compile(
    r"\.dist-info/(?:licenses/)?((?:.*/)?(?:licen[cs]e|copying|notice)[^/]*)$", re.I
)
BILL_OF_MATERIALS = re.compile(r"\.dist-info/sboms/(.*)\.json$")


THIRD_PARTY_README = """\
Python distributions that gpuwarden carries in /usr/lib/gpuwarden/vendor, unchanged but for stripped
debugging symbols and left out sources and tests. NAME.txt has the licence texts that a distribution
comes with, NAME.PART.pythonVERSION.json its bills of materials, if it has any.
"""


class VendorError(Exception):
    """The dependencies can't be put together; the message says which and why."""


@dataclass(frozen=True)
class Requirement:
    """One pinned distribution of the lock file, with the lines that pin it."""

    name: str
    version: str
    text: str


@dataclass
class Merged:
    """What the wheels of all Pythons add up to: contents by relative path, metadata by name."""

    site: dict[str, bytes] = field(default_factory=dict)
    licences: dict[str, bytes] = field(default_factory=dict)
    bills_of_materials: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, Message] = field(default_factory=dict)


def normalized(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> list[Requirement]:
    """The pins of a hash-locked requirements file; ``VendorError`` for a line without a hash."""
    requirements = []
    for block in re.split(r"\n(?=[A-Za-z])", "\n" + text):
        lines = [line for line in block.splitlines() if line and not line.lstrip().startswith("#")]
        if not lines:
            continue
        pin = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", lines[0])
        if not pin or not any("--hash=sha256:" in line for line in lines):
            raise VendorError(f"the lock has no exact version with a hash here: {lines[0]!r}")
        requirements.append(Requirement(normalized(pin[1]), pin[2], "\n".join(lines) + "\n"))
    return requirements


def pip(*arguments: str | Path) -> None:
    """Runs this interpreter's pip; ``VendorError`` with its words when it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VendorError(f"{' '.join(command[3:])}\n{done.stderr.strip()}")


def fetch_wheels(requirements: Iterable[Requirement], python: str, folder: Path) -> None:
    """Downloads the binary wheels that fit one CPython into an empty ``folder``."""
    lock = folder / "lock.txt"
    lock.write_text("".join(r.text for r in requirements if r.name not in SOURCE_ONLY))
    abi = "cp" + python.replace(".", "")
    pip(
        *("download", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:"),
        *("--python-version", python, "--implementation", "cp"),
        *(word for tag in (abi, "abi3", "none") for word in ("--abi", tag)),
        *(word for platform in PLATFORMS for word in ("--platform", platform)),
        *("--requirement", lock, "--dest", folder),
    )


def build_source_wheels(requirements: Iterable[Requirement], folder: Path) -> None:
    """Downloads the source-only distributions and makes their wheels, offline, in ``folder``."""
    lock, sources = folder / "lock.txt", folder / "sources"
    lock.write_text("".join(r.text for r in requirements if r.name in SOURCE_ONLY))
    pip(
        *("download", "--quiet", "--require-hashes", "--no-deps", "--no-binary=:all:"),
        *("--no-build-isolation", "--requirement", lock, "--dest", sources),
    )
    for source in sorted(sources.iterdir()):
        pip(
            *("wheel", "--quiet", "--no-deps", "--no-index", "--no-cache-dir"),
            *("--no-build-isolation", "--wheel-dir", folder, source),
        )


def cached(folder: Path, key: str) -> bool:
    """Whether ``folder`` was filled for ``key``; empties it where not."""
    if (folder / "complete").is_file() and (folder / "complete").read_text() == key:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return False


def collect_wheels(requirements: list[Requirement], cache: Path) -> dict[str, list[Path]]:
    """The wheels of each Python, downloaded where the cache lacks them; says what that took."""
    key = hashlib.sha256("".join(r.text for r in requirements).encode()).hexdigest()
    started, fetched = time.monotonic(), []
    for label in ("source", *PYTHONS):
        folder = cache / label
        if cached(folder, key):
            continue
        if label == "source":
            build_source_wheels(requirements, folder)
        else:
            fetch_wheels(requirements, label, folder)
        (folder / "complete").write_text(key)
        fetched.append(label)
    if fetched:
        size = sum(path.stat().st_size for name in fetched for path in (cache / name).glob("*.whl"))
        took = time.monotonic() - started
        print(f"downloaded wheels ({', '.join(fetched)}): {size / 1e6:.1f} MB in {took:.1f} s")
    source = sorted((cache / "source").glob("*.whl"))
    return {python: source + sorted((cache / python).glob("*.whl")) for python in PYTHONS}


def merge(wheels: Mapping[str, Iterable[Path]]) -> Merged:
    """One tree from the wheels of all Pythons; ``VendorError`` where they contradict each other."""
    merged, versions = Merged(), dict[str, str]()
    for python, paths in wheels.items():
        for path in paths:
            name, version = path.name.split("-")[:2]
            known = versions.setdefault(normalized(name), version)
            if known != version:
                raise VendorError(f"{name} is {known} for one Python and {version} for {python}")
            with zipfile.ZipFile(path) as wheel:
                _add_wheel(merged, normalized(name), python, wheel)
    return merged


def _add_wheel(merged: Merged, name: str, python: str, wheel: zipfile.ZipFile) -> None:
    for item in sorted(wheel.namelist()):
        if item.endswith("/") or UNUSED.search(item):
            continue
        if ".data/" in item:
            raise VendorError(f"{wheel.filename} wants {item} outside of the module path")
        content = wheel.read(item)
        if licence := LICENCE.search(item):
            _add(merged.licences, f"{name}/{licence[1]}", content, wheel)
        elif bill := BILL_OF_MATERIALS.search(item):
            page = f"{name}.{bill[1].replace('/', '-')}.python{python}.json"
            _add(merged.bills_of_materials, page, content, wheel)
        else:
            _add(merged.site, item, content, wheel)
            if item.endswith(".dist-info/METADATA"):
                merged.metadata[name] = HeaderParser().parsestr(content.decode())


def _add(files: dict[str, bytes], path: str, content: bytes, wheel: zipfile.ZipFile) -> None:
    if files.setdefault(path, content) != content:
        raise VendorError(f"{path} of {wheel.filename} differs from another wheel's")


def check_complete(requirements: Iterable[Requirement], merged: Merged) -> None:
    """``VendorError`` unless exactly what the lock names is there, in the lock's versions."""
    locked = {r.name: r.version for r in requirements}
    found = {name: str(metadata["Version"]) for name, metadata in merged.metadata.items()}
    if locked != found:
        difference = sorted(set(locked.items()) ^ set(found.items()))
        raise VendorError(f"the lock and the wheels name different distributions: {difference}")


def licence_of(metadata: Message) -> str:
    """The licence that a distribution declares, in its own words."""
    classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    declared = metadata["License-Expression"] or metadata["License"]
    return str(declared or (classifiers and classifiers[0].rsplit(" :: ", 1)[-1]) or "not declared")


def third_party_pages(merged: Merged) -> dict[str, bytes]:
    """A list of all distributions, and for each a page with its licence texts."""
    pages, rows = dict(merged.bills_of_materials), []
    for name, metadata in sorted(merged.metadata.items()):
        head = (
            f"{name} {metadata['Version']}\n    licence: {licence_of(metadata)}\n"
            f"    source: https://pypi.org/project/{name}/{metadata['Version']}/\n"
        )
        rows.append(head)
        texts = [
            f"\n{'-' * 78}\n{path.removeprefix(name + '/')}\n\n".encode() + text
            for path, text in sorted(merged.licences.items())
            if path.startswith(f"{name}/")
        ]
        pages[f"{name}.txt"] = head.encode() + b"".join(texts)
    pages["README"] = (THIRD_PARTY_README + "\n" + "\n".join(rows)).encode()
    return pages


def write_tree(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes ``files`` below ``folder``."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def build_vendor(lock: Path, cache: Path) -> Path:
    """Makes ``cache/merged`` from ``lock`` unless it is there already, and returns it."""
    requirements = read_lock(lock.read_text())
    wheels = collect_wheels(requirements, cache / "wheels")
    target = cache / "merged"
    key = hashlib.sha256(lock.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if not cached(target, key):
        merged = merge(wheels)
        check_complete(requirements, merged)
        write_tree(merged.site, target / "site")
        write_tree(third_party_pages(merged), target / "third-party")
        (target / "complete").write_text(key)
    return target


def main() -> int:
    """Builds the merged tree of this checkout's lock and says where it is."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lock", type=Path, default=root / "requirements" / "runtime.txt")
    parser.add_argument("--cache", type=Path, default=root / "build" / "vendor")
    arguments = parser.parse_args()
    try:
        print(build_vendor(arguments.lock, arguments.cache))
    except VendorError as error:
        print(f"build-vendor: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
