# SPDX-License-Identifier: Apache-2.0
"""What the worker's runtime reads of the engine's free table, as the configuration checks it."""

from pathlib import Path

import pytest

from gpuwarden.config import Configuration, ConfigurationError
from gpuwarden.config.loader import load_configuration
from gpuwarden.worker.settings import RUNTIME_OPTIONS


def load(folder: Path, text: str) -> Configuration:
    file = folder / "gpuwarden.toml"
    file.write_text(text, encoding="utf-8")
    return load_configuration(file, folder / "conf.d", ())


@pytest.mark.parametrize("name", RUNTIME_OPTIONS)
@pytest.mark.parametrize("value", ["0", "-1", "true", "'much'", "4000"])
def test_a_runtime_option_that_is_no_share_is_named_with_its_line(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"gpuwarden.toml:2: .*{name}.*over 0, at most"):
        load(tmp_path, f"[workers.options]\n{name} = {value}\n")


def test_workers_of_one_card_can_not_have_more_than_the_card(tmp_path: Path) -> None:
    text = "[workers]\nworkers_per_gpu = 2\n[workers.options]\nmemory_fraction = {}\n"
    assert load(tmp_path, text.format(0.5)).workers.workers_per_gpu == 2
    with pytest.raises(ConfigurationError, match=r"memory_fraction up to 0\.5"):
        load(tmp_path, text.format(0.6))
