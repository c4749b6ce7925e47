# SPDX-License-Identifier: Apache-2.0
"""[thermal]: thresholds, the cards' own tables, and hooks."""

import dataclasses
from pathlib import Path
from typing import get_args

import pytest

from gpuwarden.config import Configuration, ConfigurationError, Problem, load_configuration
from gpuwarden.config.kinds import StateName
from gpuwarden.config.rules import Rule, cards_are, front_door_is_at
from gpuwarden.config.thermal import CardSettings, CardWishes
from gpuwarden.config.urls import Door
from gpuwarden.values import ThermalState

UUID = "GPU-8f3a2b1c-0d4e-4f5a-9b6c-7d8e9f0a1b2c"
OTHER = "GPU-00000000-0d4e-4f5a-9b6c-7d8e9f0a1b2c"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gpuwarden.toml"


def load(file: Path, text: str, *rules: Rule) -> Configuration:
    file.write_text(text, encoding="utf-8")
    return load_configuration(file, file.with_name("conf.d"), rules)


def problems(file: Path, text: str, *rules: Rule) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(file, text, *rules)
    return caught.value.problems


def problem(file: Path, text: str, *rules: Rule) -> Problem:
    (only,) = problems(file, text, *rules)
    return only


# --- the cards' own tables


def test_a_cards_own_table_wins_key_by_key_and_0_is_the_cards_own_again(file: Path) -> None:
    thermal = load(
        file,
        "[thermal]\nalert_celsius = 70\ncritical_celsius = 80\npolicy = 'stepped'\n"
        f"[thermal.cards.{UUID}]\nalert_celsius = 0\npolicy = 'regulated'\n"
        "sm_clock_baseline_mhz = 1200\n",
    ).thermal
    assert thermal.of_card(UUID) == CardWishes(0, 80, 0, "regulated", 1200)
    assert thermal.of_card(OTHER) == CardWishes(70, 80, 0, "stepped", 0)


def test_what_can_be_wished_for_a_card_is_what_its_table_has() -> None:
    wishes = [field.name for field in dataclasses.fields(CardWishes)]
    assert wishes == list(CardSettings.model_fields)
    assert Configuration().thermal.of_card(UUID) == CardWishes()


@pytest.mark.parametrize(
    ("uuid", "what"),
    [
        (UUID.upper(), f'did you mean "{UUID}"?'),
        (UUID.removeprefix("GPU-"), f'did you mean "{UUID}"?'),
        (UUID[:-1], "cut short or mistyped"),
        ("GPU-0", "cut short or mistyped"),
        ("MIG-" + UUID[4:], "a part of a card (MIG)"),
        ("0", "looks like a card's index"),
        ("0000:3b:00.0", "looks like a PCI address"),
        ("NVIDIA T4", "no card's UUID"),
        ("", "no card's UUID"),
        ("[key]", "no card's UUID"),
    ],
)
def test_a_malformed_uuid_is_told_what_it_looks_like(file: Path, uuid: str, what: str) -> None:
    found = problem(file, f'[thermal]\n[thermal.cards."{uuid}"]\nalert_celsius = 70\n')
    assert found.line == 2
    assert what in found.hint
    assert found.found == f'"{uuid}"'
    assert 'thermal.cards."GPU-' in found.allowed


def test_a_cards_table_is_checked_like_any_other(file: Path) -> None:
    text = f"[thermal.cards.{UUID}]\nalert_celsius = 20\nalert_celcius = 1\n"
    text += f"[thermal.cards]\n{OTHER} = 3\n"
    bad_value, unknown, no_table = problems(file, text)
    assert (bad_value.line, bad_value.key) == (2, f"thermal.cards.{UUID}.alert_celsius")
    assert "from 30 to 120" in bad_value.allowed
    assert (unknown.line, unknown.hint) == (3, "did you mean alert_celsius?")
    assert unknown.allowed.startswith("alert_celsius, critical_celsius, safe_celsius, policy")
    assert (no_table.line, no_table.found) == (5, "3 (an integer)")


def test_a_table_for_a_card_that_is_not_here_is_told_which_are(file: Path) -> None:
    text = f"\n[thermal.cards.{UUID}]\nalert_celsius = 70\n"
    assert load(file, text, cards_are({0: UUID})).thermal.cards
    found = problem(file, text, cards_are({1: OTHER}))
    assert (found.file, found.line, found.key) == (file, 2, f"thermal.cards.{UUID}")
    assert found.found == f"no such card: {UUID}"
    assert found.allowed == f"this node has: {OTHER} (GPU 1)"
    assert problem(file, text, cards_are({})).allowed == "this node has: no card"


# --- thresholds that must be in order


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("alert_celsius = 80\ncritical_celsius = 80", 3, "alert_celsius of 80 with critical_"),
        ("critical_celsius = 80\nalert_celsius = 90", 3, "alert_celsius of 90 with critical_"),
        ("alert_celsius = 70\nsafe_celsius = 72.5", 3, "safe_celsius of 72.5 with alert_celsius"),
        ("safe_celsius = 90\ncritical_celsius = 85", 3, "safe_celsius of 90 with critical_"),
    ],
)
def test_thresholds_out_of_order_are_blamed_on_the_last_written(
    file: Path, text: str, line: int, found: str
) -> None:
    blamed = problem(file, f"[thermal]\n{text}\n")
    assert blamed.line == line
    assert found in blamed.found
    assert "below" in blamed.allowed


def test_thresholds_in_order_or_of_the_cards_own_are_good(file: Path) -> None:
    assert load(file, "[thermal]\nsafe_celsius=72\nalert_celsius=78\ncritical_celsius=85\n")
    assert load(file, "[thermal]\nalert_celsius = 0\ncritical_celsius = 40\nsafe_celsius = 35\n")


def test_a_cards_own_thresholds_are_held_against_the_general_ones(file: Path) -> None:
    general = "[thermal]\nalert_celsius = 70\ncritical_celsius = 80\n"
    blamed = problem(file, f"{general}[thermal.cards.{UUID}]\nalert_celsius = 85\n")
    assert (blamed.line, blamed.key) == (5, f"thermal.cards.{UUID}.alert_celsius")
    both = f"{general}[thermal.cards.{UUID}]\nalert_celsius = 85\ncritical_celsius = 90\n"
    assert load(file, both)
    wrong_in_general = "[thermal]\nalert_celsius = 90\ncritical_celsius = 80\n"
    assert len(problems(file, f"{wrong_in_general}[thermal.cards.{UUID}]\nsafe_celsius=60\n")) == 1


def test_thresholds_of_several_files_are_checked_together(file: Path) -> None:
    file.with_name("conf.d").mkdir()
    late = file.with_name("conf.d") / "50.toml"
    late.write_text("[thermal]\nalert_celsius = 84\n")
    blamed = problem(file, "[thermal]\ncritical_celsius = 80\n")
    assert (blamed.file, blamed.line) == (late, 2)


# --- hooks

POST = "post = 'http://127.0.0.1:7861/api/thermal_mode?mode=eco'"


def hook(body: str) -> str:
    return f"[[thermal.hooks]]\n{body}\n"


def test_hooks_keep_their_order_and_have_a_short_timeout(file: Path) -> None:
    first, second = load(
        file,
        hook(f"on = ['alert', 'critical']\n{POST}")
        + hook("on = ['lost']\ncommand = ['/bin/page', '-v']\ntimeout_seconds = 60"),
    ).thermal.hooks
    assert first.on == ("alert", "critical")
    assert (first.post, first.command) == ("http://127.0.0.1:7861/api/thermal_mode?mode=eco", None)
    assert first.timeout_seconds == 5
    assert second.command == ("/bin/page", "-v")


def test_a_hook_may_name_every_state_of_a_card() -> None:
    assert sorted(get_args(StateName)) == sorted(state.value for state in ThermalState)


def test_hooks_survive_the_accepted_configuration(file: Path) -> None:
    configuration = load(
        file,
        hook(f"on = ['alert']\n{POST}")
        + hook("on = ['lost']\ncommand = ['/bin/page']")
        + f"[thermal.cards.{UUID}]\nalert_celsius = 70\n",
    )
    again = Configuration.model_validate_json(configuration.model_dump_json())
    assert again == configuration


@pytest.mark.parametrize(
    ("body", "line", "key", "words"),
    [
        (POST, 1, "[0].on", "found nothing"),
        (f"on = []\n{POST}", 2, "[0].on", "names no state"),
        (f"on = ['alert', 'alert']\n{POST}", 2, "[0].on", "names a state twice"),
        (f"on = 'alert'\n{POST}", 2, "[0].on", 'found "alert" (a string)'),
        (f"on = ['alert', 'hot']\n{POST}", 2, "[0].on[1]", 'a list of "normal", "alert"'),
        ("on = ['alert']", 1, "[0]", "neither post nor command"),
        (f"on = ['alert']\n{POST}\ncommand = ['/a']", 1, "[0]", "both post and command"),
        ("on = ['alert']\ncommand = []", 3, "[0].command", "names no program"),
        ("on = ['alert']\ncommand = ['page']", 3, "[0].command", "not an absolute path"),
        ("on = ['alert']\ncommand = '/bin/page'", 3, "[0].command", "begins with an absolute"),
        ('on = ["alert"]\ncommand = ["/a", "\\u0000"]', 3, "[0].command", "no NUL"),
        (f"on = ['alert']\n{POST}\ntimeout_seconds = 61", 4, "[0].timeout_seconds", "0.1 to 60"),
        (f"on = ['alert']\n{POST}\nmethod = 'GET'", 4, "[0].method", "on, post, command, timeout"),
    ],
)
def test_a_bad_hook_is_blamed_with_its_line(
    file: Path, body: str, line: int, key: str, words: str
) -> None:
    found = problem(file, hook(body))
    assert (found.line, found.key) == (line, f"thermal.hooks{key}")
    assert words in str(found)


def test_one_bad_hook_does_not_hide_what_else_is_wrong(file: Path) -> None:
    text = hook("on = ['hot']\npost = 'ftp://x'")
    text += hook("on = ['alert']")
    text += "[thermal]\nalert_celsius = 90\ncritical_celsius = 80\n"
    # [thermal] after [[thermal.hooks]] defines the table that the header has only mentioned.
    assert [each.line for each in problems(file, text)] == [2, 3, 4, 8]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("127.0.0.1:7861/x", "http:// or https://"),
        ("ftp://127.0.0.1/x", "http:// or https://"),
        ("file:///etc/shadow", "http:// or https://"),
        ("http:///x", "names no host"),
        ("http://a:99999/", "Port out of range"),
        ("http://a:0/", "port 0"),
        ("http://127%2e0.0.1:7860/", "no % in it"),
        ("http://a:http/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://a/b c", "without spaces"),
        ("http://a/\\u00e9", "printable ASCII"),
        ("http://a/\\r\\nHost: b", "printable ASCII"),
        ("http://me:secret@a/", "everybody can read"),
        ("http://a/#b", "is never sent"),
    ],
)
def test_a_url_that_nothing_can_be_posted_to_is_refused(file: Path, url: str, why: str) -> None:
    found = problem(file, hook(f'on = ["alert"]\npost = "{url}"'))
    assert found.line == 3
    assert why in found.hint


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "localhost.", "a.localhost"),
        *("[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f000001"),
    ],
)
def test_a_hook_to_our_own_front_door_is_refused_with_the_reason(file: Path, host: str) -> None:
    def post(port: int) -> str:
        return hook(f"on = ['alert']\npost = 'http://{host}:{port}/api/thermal_mode?mode=eco'")

    assert "our own front door" in problem(file, post(7860)).hint
    assert load(file, post(7861))
    moved = problem(file, post(7861), front_door_is_at([Door("0.0.0.0", 7861)]))
    assert (moved.line, moved.key) == (3, "thermal.hooks[0].post")
    assert "our own front door" in moved.found


def test_another_node_may_listen_where_we_do(file: Path) -> None:
    for host in ("pacs.example", "10.0.0.7", "[fd00::7]"):
        text = hook(f"on = ['alert']\npost = 'http://{host}:7860/'")
        assert load(file, text, front_door_is_at([Door("10.0.0.8", 7860)])).thermal.hooks
    here = front_door_is_at([Door("10.0.0.7", 7860), Door("fd00::7", 443)])
    assert (
        "front door"
        in problem(file, hook("on = ['alert']\npost = 'http://10.0.0.7:7860/'"), here).found
    )
    assert (
        "front door"
        in problem(file, hook("on = ['alert']\npost = 'https://[fd00:0::7]/'"), here).found
    )


def test_another_program_may_have_loopback_where_our_front_door_is_elsewhere(file: Path) -> None:
    text = hook("on = ['alert']\npost = 'http://localhost:80/'")
    assert load(file, text, front_door_is_at([Door("10.0.0.7", 80)])).thermal.hooks
    assert "front door" in problem(file, text, front_door_is_at([Door("::", 80)])).found
