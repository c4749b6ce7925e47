# SPDX-License-Identifier: Apache-2.0
"""A model that the workers are to run, as the configuration describes it."""

import re
from pathlib import Path

import pytest

from gpuwarden.config import ConfigurationError, load_configuration

DOCUMENT = Path(__file__).parents[3] / "docs" / "models.md"
GOOD = """
[workers]
engine = "transformers"
workers_per_gpu = 1

[workers.options]
path = "/srv/models/medgemma-4b-it"
cache_tokens = 1024
"""


def test_the_documented_model_is_taken(tmp_path: Path) -> None:
    (block,) = (
        one
        for one in re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
        if 'engine = "transformers"' in one
    )
    file = tmp_path / "gpuwarden.toml"
    file.write_text(block)
    workers = load_configuration(file, tmp_path / "conf.d").workers
    assert (workers.engine, workers.options["cache_tokens"]) == ("transformers", 1024)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cache_tokens = 1024", 'torch_dtype = "int4"', "found 'int4'; allowed: one of auto"),
        ("cache_tokens = 1024", "temperature = 3", "8: workers.options.temperature: found 3"),
        ("cache_tokens", "cache_token", "8: workers.options.cache_token: found no such option"),
        ("path = ", "# ", '3: workers.engine: found "transformers" without workers.options.path'),
        ("_gpu = 1", "_gpu = 2", "memory_fraction up to 0.5"),
    ],
)
def test_what_is_wrong_of_it_is_found_before_anything_starts(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    file = tmp_path / "gpuwarden.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(file, tmp_path / "conf.d")
    assert said in str(caught.value)
