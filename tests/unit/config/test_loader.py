# SPDX-License-Identifier: Apache-2.0
"""What the files' settings are, and which values are refused."""

import pytest

from gpuwarden.config import Configuration
from tests.unit.config.files import Files


def test_no_file_means_the_defaults(files: Files) -> None:
    assert files.load() == Configuration()
    files.directory.mkdir()
    assert files.load() == Configuration()  # which the shipped file has, value by value


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
