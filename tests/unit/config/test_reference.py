# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

from gpuwarden.config import Configuration, load_configuration
from gpuwarden.config.explain import sections
from gpuwarden.config.reference import (
    DOCUMENTATION_FILE,
    SHIPPED_FILE,
    documentation,
    main,
    shipped_file,
)
from gpuwarden.config.settings import extra_of, table_of

ROOT = Path(__file__).parents[3]
EXAMPLE = re.compile(r"^#   (?=[a-z_]+ = |\[)", re.MULTILINE)
SETTING = re.compile(r"^#(?=[a-z_]+ = |\[)", re.MULTILINE)


def test_the_committed_files_are_those_that_the_models_generate(tmp_path: Path) -> None:
    for file in (SHIPPED_FILE, DOCUMENTATION_FILE):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    main(tmp_path)
    for file in (SHIPPED_FILE, DOCUMENTATION_FILE):
        assert (ROOT / file).read_text(encoding="utf-8") == (tmp_path / file).read_text("utf-8")


def test_the_shipped_file_as_it_is_and_with_everything_uncommented_means_the_defaults(
    tmp_path: Path,
) -> None:
    file = tmp_path / "gpuwarden.toml"
    uncommented = SETTING.sub("", shipped_file())
    for content in (shipped_file(), uncommented):
        file.write_text(content, encoding="utf-8")
        assert load_configuration(file, None) == Configuration()
    for table, model in sections():
        assert f"\n[{table}]\n" in uncommented
        for key in model.model_fields:
            begins = rf"^(?:{key} = |#   \[\[?{table}\.{key}[\].])"
            assert re.search(begins, uncommented, re.MULTILINE), key


def test_every_setting_says_what_it_is_and_why_and_stands_in_the_manual() -> None:
    manual = documentation()
    for _, model in sections():
        for key, field in model.model_fields.items():
            assert field.description
            assert field.description.endswith(".")
            assert extra_of(field, "why")
            assert f"\n### {key}\n" in manual
            inner = table_of(field)
            for inner_key, inner_field in inner.model_fields.items() if inner else ():
                assert str(inner_field.description).endswith(".")
                assert extra_of(inner_field, "why")
                assert f"\n#### {key}: {inner_key}\n" in manual
                assert f"\n#   {inner_key}: " in shipped_file()


def test_the_examples_of_the_shipped_file_are_good_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "gpuwarden.toml"
    file.write_text(EXAMPLE.sub("", SETTING.sub("", shipped_file())), encoding="utf-8")
    loaded = load_configuration(file, None)
    assert loaded.workers.options["precision"] == "bf16"
    assert [card.alert_celsius for card in loaded.thermal.cards.values()] == [70]
    assert [hook.on for hook in loaded.thermal.hooks] == [
        ("alert", "critical"),
        ("normal",),
        ("blind", "lost"),
    ]


def test_no_line_of_the_shipped_file_is_wider_than_a_screen() -> None:
    assert max(len(line) for line in shipped_file().splitlines()) <= 100
