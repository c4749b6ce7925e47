# SPDX-License-Identifier: Apache-2.0
"""Which tests a change can touch: those of which something is not as it was when they were green.

A test file depends on itself, on every module of ours that it imports, directly or through others,
on the ``conftest.py`` files above it, and on what decides the environment. What reads files, starts
programs or imports by a computed name says so in its source, and then depends on more: on
everything, or on all of a package. So what is left out has run, green, with the very same bytes.
"""

import ast
import hashlib
import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

PACKAGES = ("gpuwarden", "tests", "tools")
# They decide what every test runs with.
ENVIRONMENT = ("pyproject.toml", "requirements/dev.txt")
# What the fixtures of all tests read (tests/events.py).
READ_BY_FIXTURES = ("packaging/catalog/gpuwarden.catalog",)
OWN_PLACE = re.compile(r"^.*\b__file__\b.*$", re.MULTILINE)
STARTS_PYTHON = re.compile(r"\bsys\.executable\b|\bpython3?\b")
# Where tests keep what they read, and say so in the line that finds it.
DATA = "tests/unit/data/"
IMPORTS_BY_NAME = re.compile(r"\bimport_module\b|\b__import__\b|\brunpy\b")
DOTTED = re.compile(r"((?:gpuwarden|tests|tools)(?:\.\w+)+)(?::\w+)?")


@dataclass(frozen=True)
class Source:
    """What is known of a file by its content.

    :ivar imported: dotted names that it imports, ours and others'; nothing for what is no Python.
    :ivar reads: which files of the tree it may read: none, those of tests' data, or all.
    :ivar by_name: whether it imports what no one sees in it.
    """

    digest: str
    imported: tuple[str, ...] = ()
    reads: Literal["none", "data", "all"] = "none"
    by_name: bool = False


def tracked(root: Path) -> list[str]:
    """The files of the tree, those that git doesn't know yet included."""
    command = ["git", "-c", f"safe.directory={root}", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in set(listed.split("\0")) if name and (root / name).is_file())


def look_at(root: Path, names: Iterable[str], cache: Path) -> dict[str, Source]:
    """What is known of each file; ``cache`` spares reading what has the time and size it had."""
    kept = json.loads(cache.read_text()) if cache.is_file() else {}
    reader = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    known = kept["files"] if kept.get("reader") == reader else {}
    found: dict[str, Source] = {}
    entries = {}
    for name in names:
        seen = (root / name).stat()
        stamp = [seen.st_mtime_ns, seen.st_size]
        former = known.get(name)
        if former and former["stamp"] == stamp:
            source = Source(**{**former["source"], "imported": tuple(former["source"]["imported"])})
        else:
            source = read(name, (root / name).read_bytes())
        found[name] = source
        entries[name] = {"stamp": stamp, "source": asdict(source)}
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps({"reader": reader, "files": entries}))
    return found


def read(name: str, content: bytes) -> Source:
    """What a file's content says."""
    digest = hashlib.sha256(content).hexdigest()
    if not name.endswith(".py"):
        return Source(digest)
    text = content.decode("utf-8", "replace")
    try:
        imported = imports_of(ast.parse(text))
    except SyntaxError:
        imported = ()
    return Source(digest, imported, reach(text), bool(IMPORTS_BY_NAME.search(text)))


def reach(text: str) -> Literal["none", "data", "all"]:
    """Which files of the tree a source may read."""
    if "subprocess" in text and STARTS_PYTHON.search(text):
        return "all"
    places = OWN_PLACE.findall(text)
    if all('/ "data"' in each for each in places):
        return "data" if places else "none"
    return "all"


def imports_of(tree: ast.AST) -> tuple[str, ...]:
    """Every module that it may import: for ``from a import b`` both ``a`` and ``a.b``.

    Also what a text names as a whole: entry points, and what a fixture replaces.
    """
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and (named := DOTTED.fullmatch(str(node.value))):
            names.add(named[1])
    return tuple(sorted(name for name in names if name.partition(".")[0] in PACKAGES))


class Tree:
    """The files and who depends on whom."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        self._closures: dict[str, frozenset[str]] = {}
        self._all = hashlib.sha256(
            "".join(f"{name} {source.digest}\n" for name, source in sources.items()).encode()
        ).hexdigest()

    def fingerprint(self, test: str) -> str:
        """Changes whenever anything does that the test file depends on."""
        own = self.closure(test)
        reaches = {self._reach(name) for name in own}
        if "all" in reaches:
            return self._all
        if "data" in reaches:
            own |= {name for name in self._sources if name.startswith(DATA)}
        fixtures = {name for file in loaded_with(test) for name in self.closure(file)}
        names = own | (fixtures & set(self._sources)) | {*ENVIRONMENT, *READ_BY_FIXTURES}
        lines = (
            f"{name} {self._sources[name].digest}\n" for name in sorted(names & set(self._sources))
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _reach(self, name: str) -> str:
        # The product's own modules read what is on a node, never the tree that they lie in.
        return "none" if name.startswith("gpuwarden/") else self._sources[name].reads

    def closure(self, name: str) -> frozenset[str]:
        """The file and all that it imports of ours, as paths."""
        if name not in self._sources:
            return frozenset()
        if name not in self._closures:
            found, waiting = set(), [name]
            while waiting:
                each = waiting.pop()
                if each not in found:
                    found.add(each)
                    waiting.extend(self._imported(each))
            self._closures[name] = frozenset(found)
        return self._closures[name]

    def _imported(self, name: str) -> list[str]:
        source = self._sources[name]
        paths = [path for module in source.imported for path in places(module)]
        if source.by_name:
            folder = name.rpartition("/")[0]
            paths += [each for each in self._sources if each.startswith(f"{folder}/")]
        return [path for path in paths if path in self._sources]


def places(module: str) -> list[str]:
    """Where a module and the packages above it may lie."""
    parts = module.split(".")
    above = ["/".join(parts[:count]) + "/__init__.py" for count in range(1, len(parts) + 1)]
    return [*above, "/".join(parts) + ".py"]


def loaded_with(test: str) -> list[str]:
    """What pytest loads before a test: the files of fixtures and the packages above it."""
    parts = test.split("/")[:-1]
    folders = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return [f"{folder}/{name}" for folder in folders for name in ("conftest.py", "__init__.py")]
