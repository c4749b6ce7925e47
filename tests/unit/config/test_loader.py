import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpuwarden.config import Configuration, ConfigurationError, Problem, load_configuration


class Files:
    """A main file and its conf.d in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.main = folder / "gpuwarden.toml"
        self.directory = folder / "conf.d"

    def write(self, content: str | bytes, name: str = "") -> Path:
        file = self.main
        if name:
            self.directory.mkdir(exist_ok=True)
            file = self.directory / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def load(self) -> Configuration:
        return load_configuration(self.main, self.directory)

    def problems(self) -> tuple[Problem, ...]:
        with pytest.raises(ConfigurationError) as caught:
            self.load()
        lines = str(caught.value).splitlines()
        assert lines == [str(problem) for problem in caught.value.problems]
        return caught.value.problems


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_no_file_means_the_defaults(files: Files) -> None:
    assert files.load() == Configuration()
    files.directory.mkdir()
    assert files.load() == Configuration()


def test_the_defaults_of_the_contract() -> None:
    assert Configuration().model_dump() == {
        "workers": {
            "workers_per_gpu": 1,
            "python": "/usr/bin/python3",
            "engine": "imagestats",
            "engine_path": (),
            "model": "imagestats",
            "network": "none",
            "memory_max_bytes": 17179869184,
            "tasks_max": 512,
            "cpus_per_worker": 0,
            "inference_priority": "fifo:10",
            "preprocess_processes": 2,
            "preprocess_memory_bytes": 4294967296,
            "max_pixels": 67108864,
            "max_batch": 4,
            "drain_seconds": 30,
            "load_timeout_seconds": 600,
            "execution_timeout_seconds": 30,
            "options": {},
        },
        "gateway": {
            "connections_limit": 2000,
            "header_timeout_seconds": 20,
            "idle_timeout_seconds": 75,
            "reader_timeout_seconds": 30,
            "queue_limit": 100,
            "queue_limit_bytes": 536870912,
            "body_limit_bytes": 134217728,
            "header_limit_bytes": 16384,
            "request_timeout_seconds": 30,
            "pool_bytes": 536870912,
            "host_names": (),
            "proxy_addresses": (),
            "uploads_limit": 64,
            "linger_ms": 0,
            "batch_pixels": 134217728,
            "batch_tokens": 32768,
            "images_bytes": 268435456,
            "results_bytes": 268435456,
            "images_seconds": 600,
        },
        "jobs": {
            "disk_limit_bytes": 21474836480,
            "disk_free_share": 0.1,
            "keep_seconds": 86400,
        },
        "placement": {
            "housekeeping_cpus": "",
            "memory_policy": "preferred",
            "housekeeping_exclusive": False,
        },
        "thermal": {
            "sample_hertz": 5,
            "decide_hertz": 2,
            "policy": "regulated",
            "alert_celsius": 0,
            "critical_celsius": 0,
            "safe_celsius": 0,
            "safe_seconds": 30,
            "memory_clock_lock": False,
            "sm_clock_baseline_mhz": 0,
            "cards": {},
            "hooks": (),
        },
        "health": {
            "stuck_grace_seconds": 40,
            "memory_soft_limit": 0.9,
            "fragmentation_limit": 0.5,
            "fragmentation_seconds": 600,
            "fragmentation_at_least_bytes": 2147483648,
            "reap_orphans": True,
        },
        "scan": {
            "period_seconds": 5,
            "monitoring": (
                "nvidia-smi",
                "nvidia-persistenced",
                "nv-hostengine",
                "dcgm-exporter",
                "nvtop",
            ),
        },
        "tuning": {
            "enabled": False,
            "day_profile": "gpuwarden-day",
            "night_profile": "gpuwarden-night",
        },
        "log": {"level": "info"},
    }


def test_later_files_win_key_by_key_and_tables_are_merged(files: Files) -> None:
    files.write('[workers]\nmax_batch = 1\ntasks_max = 100\n[workers.options]\na = 1\nb = "x"\n')
    files.write("[workers]\nmax_batch = 2\nengine_path = ['/a', '/b']\n", "10-a.toml")
    files.write("workers.max_batch = 3\nworkers.options.a = [1, 2.5, true]\n", "20-b.toml")
    files.write("workers.max_batch = 4\nworkers.engine_path = ['/c']", "9-late-by-name.toml")
    files.write("broken", ".hidden.toml")
    files.write("broken", "notes.txt")
    workers = files.load().workers
    assert workers.max_batch == 4
    assert workers.tasks_max == 100
    assert workers.engine_path == ("/c",)
    assert workers.options == {"a": [1, 2.5, True], "b": "x"}


def test_conf_d_works_without_a_main_file(files: Files) -> None:
    files.write("[log]\nlevel = 'debug'", "a.toml")
    assert files.load().log.level == "debug"


def test_sizes_are_numbers_or_strings(files: Files) -> None:
    files.write('[gateway]\npool_bytes = "1.5G"\nqueue_limit_bytes = 600000000\n')
    assert files.load().gateway.pool_bytes == 3 * 2**29
    assert files.load().gateway.queue_limit_bytes == 600000000


def test_the_model_is_called_like_its_engine_until_it_has_a_name(files: Files) -> None:
    files.write("[workers]\nengine = 'site.gemma:Gemma'")
    assert files.load().workers.model == "site.gemma:Gemma"
    files.write("[workers]\nmodel = 'medgemma-4b'", "name.toml")
    assert files.load().workers.model == "medgemma-4b"


BAD_VALUES = [
    ("workers.tasks_max", "'many'", '"many" (a string)', "a whole number from 64 to 65536"),
    ("workers.tasks_max", "true", "true (a boolean)", "a whole number"),
    ("workers.tasks_max", "100.0", "100.0 (a float)", "a whole number"),
    ("workers.tasks_max", "63", "63 (an integer)", "from 64 to"),
    ("workers.tasks_max", "1979-05-27", "1979-05-27 (a date or time)", "a whole number"),
    ("workers.workers_per_gpu", "0", "0 (an integer)", "from 1 to 16"),
    ("workers.drain_seconds", "36", "36 (an integer)", "a number from 0 to 35 (seconds)"),
    ("workers.memory_max_bytes", "'16GB'", '"16G"?', 'a string like "512M"'),
    ("workers.memory_max_bytes", "'lots'", "not a size", 'a string like "512M"'),
    ("workers.memory_max_bytes", "'1K'", '"1K" (a string)', "bytes from 256M to 16T"),
    ("workers.memory_max_bytes", "1.5", "1.5 (a float)", "bytes from 256M"),
    ("workers.memory_max_bytes", "0x" + "f" * 5000, "0xfff", "bytes from 256M"),
    *(
        ("workers.inference_priority", value, found, '"normal" or "fifo:1" to "fifo:99"')
        for value, found in (
            ("'fifo:0'", "real-time priorities go from 1 to 99"),
            ("'fifo:100'", "real-time priorities go from 1 to 99"),
            ("'fifo'", "no priority given"),
            ("'rr:5'", "the policy rr is not used"),
            ("'high'", "not a priority"),
            ("10", "10 (an integer)"),
        )
    ),
    ("workers.engine", "'medgemma'", "no built-in engine", '"package.module:ClassName"'),
    ("workers.engine", "'a.b:'", "not of the form", '"package.module:ClassName"'),
    ("workers.engine_path", "'/a'", '"/a" (a string)', "a list of absolute paths"),
    ("workers.engine_path[1]", "['/a', 'b']", "not an absolute path", "a list of absolute paths"),
    ("workers.engine_path[0]", "[1]", "1 (an integer)", "a list of absolute paths"),
    ("workers.python", "'python3'", "not an absolute path", "the absolute path of a python"),
    ("workers.python", "'/a\\u0000'", "", ""),
    ("workers.model", "''", "1 to 128 characters", "printable ASCII"),
    ("workers.model", "'a\tb'", "printable ASCII", "printable ASCII"),
    ("workers.model", "' a'", "neither begins nor ends", "printable ASCII"),
    ("workers.options", "1", "1 (an integer)", "strings, finite numbers"),
    ("workers.options.x", "{x = {y = 1}}", "a table", "strings, finite numbers"),
    ("workers.options.x", "{x = [[1]]}", "a list of 1", "strings, finite numbers"),
    ("workers.options.x", "{x = nan}", "no infinity and no NaN", "finite numbers"),
    ("workers.options.x", "{x = 07:00:00}", "a date or time", "strings, finite numbers"),
    ('workers.options."a b"', "{'a b' = inf}", "inf (a float)", "finite numbers"),
    ("gateway.request_timeout_seconds", "nan", "nan (a float)", "a number from 0.1 to 3600"),
    ("gateway.request_timeout_seconds", "'30s'", '"30s" (a string)', "a number from 0.1"),
    ("placement.housekeeping_cpus", "'0-'", '"0-" is neither', "a kernel CPU list"),
    ("placement.housekeeping_cpus", "0", "0 (an integer)", "a kernel CPU list as a string"),
    ("placement.housekeeping_cpus", "'0-3,2'", "CPU 2 is named twice", "a kernel CPU list"),
    ("placement.housekeeping_exclusive", "1", "1 (an integer)", "true or false"),
    ("placement.memory_policy", "'near'", '"near" (a string)', '"preferred", "bind" or "none"'),
    ("thermal.sample_hertz", "0.5", "0.5 (a float)", "a number from 1 to 20 (hertz)"),
    ("thermal.sample_hertz", "inf", "inf (a float)", "a number from 1 to 20"),
    ("thermal.decide_hertz", "0.4", "0.4 (a float)", "a number from 0.5 to 5 (hertz)"),
    ("thermal.policy", "'gentle'", '"gentle" (a string)', '"regulated" or "stepped"'),
    ("thermal.alert_celsius", "29", "29 (an integer)", "0, or a number from 30 to 120"),
    ("thermal.critical_celsius", "-1", "no card can be guarded", "0, or a number from 30 to 120"),
    ("thermal.safe_celsius", "'72'", '"72" (a string)', "0, or a number from 30 to 120"),
    ("thermal.safe_seconds", "0", "0 (an integer)", "a number from 1 to 3600 (seconds)"),
    ("thermal.memory_clock_lock", "1", "1 (an integer)", "true or false"),
    ("thermal.sm_clock_baseline_mhz", "2", "no card's SMs run", "number from 100 to 5000 (MHz)"),
    ("log.level", "'INFO'", '"INFO" (a string)', '"debug", "info", "warning" or "error"'),
]


@pytest.mark.parametrize(("key", "value", "found", "allowed"), BAD_VALUES)
def test_a_bad_value_is_blamed_with_line_key_found_and_allowed(
    files: Files, key: str, value: str, found: str, allowed: str
) -> None:
    if "\\u0000" in value:  # only a basic string can spell it
        value, found, allowed = '"/a\\u0000"', "no NUL character", "the absolute path of a python"
    table, name = key.split("[", 1)[0].split(".")[:2]
    file = files.write(f"# site\n[{table}]\n\n{name} = {value}\n")
    (problem,) = files.problems()
    assert (problem.file, problem.line, problem.key) == (file, 4, key)
    assert found in f"{problem.found}; {problem.hint}"
    assert allowed in problem.allowed
    assert str(problem).startswith(f"{file}:4: {key}: found ")
    assert str(problem).isprintable()


UNKNOWN = [
    ("[workers]\nmax_batsh = 4", "workers.max_batsh", "did you mean max_batch?", "max_batch"),
    ("[workers]\nMax-Batch = 4", "workers.Max-Batch", "did you mean max_batch?", "max_batch"),
    ("[workers]\nqueue_limit = 4", "workers.queue_limit", "queue_limit in [gateway]?", "python"),
    ("[workers]\ncolour = 4", "workers.colour", "", "workers_per_gpu, python, engine"),
    ("\n[gatway]", "gatway", "did you mean gateway?", "[workers], [gateway]"),
    ("\n[zzz.a]", "zzz", "", "[workers], [gateway]"),
    ("\nmax_batch = 3", "max_batch", "did you mean max_batch in [workers]?", "only tables"),
    ("\nmax_batsh = 3", "max_batsh", "did you mean max_batch in [workers]?", "only tables"),
    ("\ngpu = 3", "gpu", "", "only tables"),
    ("\nworkers = 3", "workers", "", "a table, [workers]"),
    ("\n[[log]]", "log", "", "a table, [log]"),
]


@pytest.mark.parametrize(("text", "key", "hint", "allowed"), UNKNOWN)
def test_an_unknown_key_is_told_what_it_may_have_meant(
    files: Files, text: str, key: str, hint: str, allowed: str
) -> None:
    files.write(text)
    (problem,) = files.problems()
    assert (problem.line, problem.key) == (2, key)
    assert hint in problem.hint
    assert bool(hint) == bool(problem.hint)
    assert allowed in problem.allowed


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
@example("[workers]\n\r\r\n[workers]\n")
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
