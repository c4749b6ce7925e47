# SPDX-License-Identifier: Apache-2.0
"""Files that can't be read, and several problems at once: each is told, with its place."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.config import ConfigurationError
from tests.unit.config.files import Files

SYNTAX = [
    ("[log]\nlevel = info", 2, "log.level", 'text needs quotes: "info"'),
    ("[workers]\npython = /usr/bin/python3", 2, "workers.python", "text needs quotes"),
    ("[workers]\nmax_batch = True", 2, "workers.max_batch", "did you mean true?"),
    ("[workers]\nmax_batch 4", 2, "workers", ""),
    ("[log]\nlevel = 'info", 2, "log.level", ""),
    ("[log]\n[gateway]\n[log]", 3, "log", "it is on line 1 already"),
    ("[workers]\nmax_batch = 1\nmax_batch = 1", 3, "workers.max_batch", "it is on line 2"),
    ("[workers]\nmax_batch = 04", 2, "workers.max_batch", ""),
    ("[workers]\nengine_path = [\n'/a'\n'/b'\n]", 2, "workers.engine_path", ""),
    ("[workers]\nengine_path = ['/a'\n[log]", 2, "workers.engine_path", ""),
    ('[log]\nlevel = """info\n', 2, "log.level", ""),
    ("[workers\nmax_batch = 1", 1, "", ""),
    ("[log]\n\n= 1", 3, "log", ""),
    ("[workers]\ntasks_max = " + "9" * 5000, 2, "workers.tasks_max", ""),
    ('[log]\nlevel = "in\\fo\\q"', 2, "log.level", ""),
    ("[log]\nlevel = 2024-02-30", 2, "log.level", ""),
    ("[log]\nlevel = {a = 1, a = 2}", 2, "log.level", ""),
]


@pytest.mark.parametrize(("text", "line", "key", "hint"), SYNTAX)
def test_broken_syntax_is_blamed_on_the_statement(
    files: Files, text: str, line: int, key: str, hint: str
) -> None:
    files.write(text)
    (problem,) = files.problems()
    assert (problem.line, problem.key) == (line, key)
    assert hint in problem.hint
    assert str(problem).isprintable()


def test_every_problem_of_every_file_is_reported_at_once_in_order(files: Files) -> None:
    main = files.write(
        "[workers]\nmax_batsh = 1\npython = python3\n[workers]\nmax_batch = 'x'\n[log]\nlevel = 1\n"
    )
    binary = files.write(b"[log]\n\n# caf\xe9\n", "10.toml")
    good = files.write("[workers]\nmax_batch = 2\n", "20.toml")
    bad = files.write("[gateway]\nqueue_limit = 0\nname = 1\n", "30.toml")
    (files.directory / "40.toml").mkdir()
    problems = files.problems()
    assert good not in {problem.file for problem in problems}
    assert [(problem.file, problem.line, problem.key) for problem in problems] == [
        (main, 2, "workers.max_batsh"),
        (main, 3, "workers.python"),
        (main, 4, "workers"),
        (main, 7, "log.level"),
        (binary, 3, ""),
        (bad, 2, "gateway.queue_limit"),
        (bad, 3, "gateway.name"),
        (files.directory / "40.toml", None, ""),
    ]


def test_a_bad_value_is_reported_even_where_a_later_file_wins(files: Files) -> None:
    main = files.write("[workers]\nmax_batch = 0\n")
    files.write("[workers]\nmax_batch = 2\n", "a.toml")
    (problem,) = files.problems()
    assert (problem.file, problem.line) == (main, 2)


def test_settings_that_do_not_fit_are_blamed_on_the_last_file_that_wrote_one(files: Files) -> None:
    files.write('[gateway]\nbody_limit_bytes = "300M"\n')
    assert files.load().gateway.body_limit_bytes == 300 * 2**20
    late = files.write('\n[gateway]\nqueue_limit_bytes = "200M"\n', "50.toml")
    (problem,) = files.problems()
    assert (problem.file, problem.line, problem.key) == (late, 3, "gateway.queue_limit_bytes")
    assert "body_limit_bytes of 300M" in problem.found
    assert "up to gateway.queue_limit_bytes" in problem.allowed


def test_settings_that_are_wrong_in_themselves_are_not_held_against_others(files: Files) -> None:
    files.write('[gateway]\nbody_limit_bytes = "4G"\nqueue_limit_bytes = 1\npool_bytes = true\n')
    assert [problem.line for problem in files.problems()] == [3, 4]


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ("[log]\nlevel='info'".encode("utf-16"), 1, "UTF-16"),
        ("[log]".encode("utf-8-sig"), 1, "a byte order mark"),
        (b"[log]\n\nlevel = 'caf\xe9'", 3, "the byte 0xe9, which is not UTF-8"),
        (b"\x7fELF\x02\x01\x01", 1, "Invalid"),
        (b"#" * (2**20 + 1), None, "more than 1 MiB"),
        (b"a = " + b"[" * 20000, None, "nested too deeply"),
        (b"a = " + b"[" * 150 + b"]" * 150, None, "nested too deeply"),
        (b"a" + b".a" * 2000 + b" = 1", None, "nested too deeply"),
        (b"[a" + b".a" * 2000 + b"]", None, "nested too deeply"),
    ],
)
def test_what_is_no_configuration_file_is_said_to_be_none(
    files: Files, content: bytes, line: int | None, found: str
) -> None:
    files.write(content)
    (problem,) = files.problems()
    assert problem.line == line
    assert found in problem.found


def test_a_main_file_that_is_no_file_is_a_problem_and_a_named_pipe_hangs_nobody(
    files: Files,
) -> None:
    files.main.mkdir()
    files.directory.mkdir()
    os.mkfifo(files.directory / "pipe.toml")
    (files.directory / "link.toml").symlink_to("nowhere")
    found = {problem.file.name: problem.found for problem in files.problems()}
    assert found == {
        "gpuwarden.toml": "a directory",
        "pipe.toml": "a named pipe",
        "link.toml": "an error: No such file or directory",
    }


def test_a_conf_d_that_is_a_file_is_a_problem(files: Files) -> None:
    files.directory.write_text("")
    (problem,) = files.problems()
    assert (problem.file, problem.found) == (files.directory, "an error: Not a directory")


pieces = st.sampled_from(
    [
        *("[workers]\n", "[log]\n", "[workers", "max_batch = 1\n", "max_batch = [\n", "x = {"),
        *("level = 'info'\n", "level = info\n", "'''", '"""', "]", "}", "=", "# [c]\n"),
        *("\n", "\r\n", "\r", "\0"),
    ]
)


@settings(deadline=None)  # the time of a busy machine is no fault
@given(st.one_of(st.binary(max_size=60), st.lists(pieces, max_size=12).map("".join)))
def test_any_content_loads_or_is_a_list_of_different_problems(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    files = Files(tmp_path_factory.mktemp("any"))
    files.write(content)
    try:
        files.load()
    except ConfigurationError as error:
        lines = files.main.read_bytes().count(b"\n") + 1
        assert error.problems
        assert len(set(error.problems)) == len(error.problems)
        for problem in error.problems:
            assert str(problem).isprintable()
            assert problem.line is None or 1 <= problem.line <= lines
