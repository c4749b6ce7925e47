# SPDX-License-Identifier: Apache-2.0
"""The files of a configuration, for tests."""

from pathlib import Path

import pytest

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
