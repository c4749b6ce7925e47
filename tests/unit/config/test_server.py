# SPDX-License-Identifier: Apache-2.0
"""A server that the workers are to run, as the configuration describes it."""

from pathlib import Path

import pytest

from gpuwarden.config import ConfigurationError, load_configuration

GOOD = """
[workers]
engine = "command"

[workers.options]
command = ["/opt/vllm/bin/vllm", "serve", "/models/m", "--port", "{port}"]
port = 8000
"""


def refusal(folder: Path, text: str) -> str:
    file = folder / "gpuwarden.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(file, folder / "conf.d")
    return str(caught.value)


def test_a_server_gets_a_loopback_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "gpuwarden.toml"
    file.write_text(GOOD)
    assert load_configuration(file, tmp_path / "conf.d").workers.network == "private"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("port = 8000", 'port = "8000"', "7: workers.options.port: found '8000'; allowed: a whole"),
        ("port = 8000", "", '3: workers.engine: found "command" without workers.options.port'),
        ("port = 8000", "port = 8000\nlogs = 1", "8: workers.options.logs: found no such option"),
        ('"command"', '"command"\nnetwork = "none"', '4: workers.network: found "none", where'),
    ],
)
def test_what_is_wrong_of_it_is_found_before_anything_starts(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert said in refusal(tmp_path, GOOD.replace(old, new, 1))


def test_options_of_another_engine_are_its_own(tmp_path: Path) -> None:
    file = tmp_path / "gpuwarden.toml"
    file.write_text('[workers]\nengine = "echo"\n[workers.options]\nport = "any"\n')
    assert load_configuration(file, tmp_path / "conf.d").workers.options == {"port": "any"}
