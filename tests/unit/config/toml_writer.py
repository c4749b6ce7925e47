# SPDX-License-Identifier: Apache-2.0
"""Random TOML documents in random styles, written by code that knows each key's line."""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from gpuwarden.config.positions import KeyPath

SCALARS = [
    "1",
    "-1.5e3",
    "inf",
    "true",
    "1979-05-27 07:32:00Z",
    "07:32:00",
    '"a # b"',
    '"\\" = ]"',
    "'[t]\\'",
    "''",
    '"""one\n[two]\nthree = 3 \\"""\n""""',
    "'''\n'quoted' ''\n'''",
    '"""a\\\n   b"""',
]
KEYS = ["a", "b", "c-1", "9", '"q.r"', "'s t'", '"\\u00e9"', '""', '"]"', "'#'", "'\"'"]
FILLERS = ["", " ", "\t"]


@dataclass
class WrittenDocument:
    """A text and the line of each key and list element in it."""

    text: str = ""
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def write(self, text: str) -> None:
        self.text += text

    def mark(self, path: KeyPath, *, again: bool = False) -> None:
        line = self.text.count("\n") + 1
        if again:
            self.lines[path] = line
        else:
            self.lines.setdefault(path, line)


def decoded(key: str) -> str:
    """The name that one of KEYS stands for."""
    if key[0] not in "\"'":
        return key
    return key[1:-1].replace("\\u00e9", "é")


@st.composite
def documents(draw: st.DrawFn) -> WrittenDocument:
    document = WrittenDocument()
    _blank_lines(draw, document)
    _body(draw, document, (), _key_names(draw))
    tables = draw(st.lists(st.sampled_from(["t", '"u v"', "w"]), unique=True, max_size=3))
    for name in tables:
        if draw(st.booleans()):
            _table(draw, document, name)
        else:
            _list_of_tables(draw, document, name)
    return document


def _table(draw: st.DrawFn, document: WrittenDocument, name: str) -> None:
    path: KeyPath = (decoded(name),)
    if draw(st.booleans()):
        child = draw(st.sampled_from(["x", "'y.z'"]))
        document.mark(path)
        document.mark((*path, decoded(child)), again=True)
        _header(draw, document, [name, child], "[", "]")
        _body(draw, document, (*path, decoded(child)), _key_names(draw))
        if draw(st.booleans()):
            return
    document.mark(path, again=True)
    _header(draw, document, [name], "[", "]")
    _body(draw, document, path, [f"own-{key}" for key in ("k", "l")])


def _list_of_tables(draw: st.DrawFn, document: WrittenDocument, name: str) -> None:
    path: KeyPath = (decoded(name),)
    for index in range(draw(st.integers(1, 3))):
        document.mark(path)
        document.mark((*path, index))
        _header(draw, document, [name], "[[", "]]")
        _body(draw, document, (*path, index), _key_names(draw))
        if draw(st.booleans()):
            document.mark((*path, index, "sub"), again=True)
            _header(draw, document, [name, "sub"], "[", "]")
            _body(draw, document, (*path, index, "sub"), _key_names(draw))


def _header(
    draw: st.DrawFn, document: WrittenDocument, names: list[str], begin: str, end: str
) -> None:
    space = draw(st.sampled_from(FILLERS))
    document.write(f"{space}{begin}{space}{f'{space}.{space}'.join(names)}{space}{end}{space}")
    document.write(draw(st.sampled_from(["\n", "# = [x\n"])))
    _blank_lines(draw, document)


def _key_names(draw: st.DrawFn) -> list[str]:
    return draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=4))


def _body(draw: st.DrawFn, document: WrittenDocument, table: KeyPath, names: list[str]) -> None:
    for name in names:
        document.write(draw(st.sampled_from(FILLERS)))
        _pair(draw, document, table, name, depth=0)
        document.write(draw(st.sampled_from(["\n", " # [x]\n", "\t#\n"])))
        _blank_lines(draw, document)


def _pair(
    draw: st.DrawFn, document: WrittenDocument, table: KeyPath, name: str, depth: int
) -> None:
    dotted = [name, *draw(st.lists(st.sampled_from(KEYS), max_size=2))]
    path = table
    for part in dotted:
        path = (*path, decoded(part))
        document.mark(path)
    space = draw(st.sampled_from(FILLERS))
    document.write(f"{f'{space}.{space}'.join(dotted)}{space}={space}")
    _value(draw, document, path, depth)


def _value(draw: st.DrawFn, document: WrittenDocument, path: KeyPath, depth: int) -> None:
    kind = draw(st.sampled_from(["scalar", "scalar", "list", "table"])) if depth < 3 else "scalar"
    if kind == "scalar":
        document.write(draw(st.sampled_from(SCALARS)))
    elif kind == "list":
        _list(draw, document, path, depth)
    else:
        document.write("{ ")
        names = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=3))
        for position, name in enumerate(names):
            document.write(" , " if position else "")
            _pair(draw, document, path, name, depth + 1)
        document.write(" }")


def _list(draw: st.DrawFn, document: WrittenDocument, path: KeyPath, depth: int) -> None:
    gaps = st.sampled_from(["", " ", "\n", "\n  # no ] here, nor [\n\t"])
    length = draw(st.integers(0, 3))
    document.write("[")
    for index in range(length):
        document.write(draw(gaps))
        document.mark((*path, index))
        _value(draw, document, (*path, index), depth + 1)
        document.write(draw(gaps))
        document.write("," if index < length - 1 or draw(st.booleans()) else "")
    document.write(draw(gaps) + "]")


def _blank_lines(draw: st.DrawFn, document: WrittenDocument) -> None:
    document.write(draw(st.sampled_from(["", "", "\n", "  \n# [c]\n", "#\n\n"])))
