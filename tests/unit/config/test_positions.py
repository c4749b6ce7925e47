# SPDX-License-Identifier: Apache-2.0
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.config.positions import KeyPath, key_lines
from tests.unit.config.toml_writer import WrittenDocument, documents


def paths_of(value: object, path: KeyPath = ()) -> set[KeyPath]:
    """Every key and list element of a parsed document."""
    if isinstance(value, dict):
        items: list[tuple[str | int, object]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return set()
    paths: set[KeyPath] = set()
    for key, child in items:
        paths |= {(*path, key)} | paths_of(child, (*path, key))
    return paths


@settings(deadline=None)  # the time of a busy machine is no fault
@given(documents())
def test_every_key_is_found_on_the_line_where_it_was_written(document: WrittenDocument) -> None:
    assert paths_of(tomllib.loads(document.text)) == set(document.lines)
    assert key_lines(document.text) == document.lines


@settings(deadline=None)  # the time of a busy machine is no fault
@given(documents())
def test_windows_line_ends_change_no_line(document: WrittenDocument) -> None:
    assert key_lines(document.text.replace("\n", "\r\n")) == document.lines


TOKENS = [
    *("a", "b.c", '"d e"', "'f'", "[", "]", "[[", "]]", "{", "}", "=", ",", ".", "#"),
    *("1", "1.5", "true", '""', "''", '"""', "'''", '"x\\"y"'),
]
STATEMENTS = [
    *("\n", " ", "a = 1\n", "[a]\n", "[[a]]\n", "[a.b]\n", "[[a.b]]\n", "m.n = 2\n"),
    *('"""\n"q" ]\n"""', "'''[\n'''", "x = {y = 1, z.w = [1]}\n", "k = [\n1, # ]\n2,\n]\n"),
    *("t = 1979-05-27 07:32:00Z\n", 'e = """"a"""""\n'),
]
TOML_PIECES = st.sampled_from(TOKENS + STATEMENTS)


@settings(deadline=None)  # the time of a busy machine is no fault
@given(st.lists(TOML_PIECES, max_size=12).map("".join))
def test_whatever_tomllib_accepts_has_the_same_keys_here(text: str) -> None:
    try:
        accepted = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(key_lines(text)) == paths_of(accepted)


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1", ("a",), 1),
        ("\n\n[t]\n# [u]\nkey = 1\n", ("t", "key"), 5),
        ('a = """\n[t]\nb = 1\n"""\nb = 2\n', ("b",), 5),
        ('a = """x\\"""\n"""\nb = 2\n', ("b",), 3),
        ("a = '''\n''''\nb = 2\n", ("b",), 3),
        ('a = """q"""""\nb = 2\n', ("b",), 2),
        ("a = [\n  1,\n  # no, ]\n  2,\n]\nb = 1", ("a", 1), 4),
        ("a = [\n  1,\n  # no, ]\n  2,\n]\nb = 1", ("b",), 6),
        ("a = [[1,\n2],\n[3]]", ("a", 1, 0), 3),
        ("\nx = {a = 1, b.c = '}'}\ny = 1", ("x", "b", "c"), 2),
        ("[a]\n[\"b.c\" . 'd']\ne = 1", ("b.c", "d", "e"), 3),
        ("[[a]]\nb=1\n[[a]]\nb=2\n[a.c]\nd=1", ("a", 1, "b"), 4),
        ("[[a]]\nb=1\n[[a]]\nb=2\n[a.c]\nd=1", ("a", 1, "c", "d"), 6),
        ('"\\u00e4" = 1\n', ("ä",), 1),
        ("when = 1979-05-27 07:32:00\nnext = 1", ("next",), 2),
        ("[a.b]\n[a]\nc = 1", ("a",), 2),
    ],
)
def test_awkward_documents(text: str, path: KeyPath, line: int) -> None:
    assert paths_of(tomllib.loads(text)) == set(key_lines(text))
    assert key_lines(text)[path] == line


def test_a_long_document_is_scanned_in_one_pass() -> None:
    text = "".join(f"[t{n}]\nkey = 'value'\n" for n in range(5000))
    assert key_lines(text)["t4999", "key"] == 10000
