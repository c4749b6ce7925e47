# SPDX-License-Identifier: Apache-2.0
"""Writes the shipped configuration file and its documentation from the models.

Run ``python -m gpuwarden.config.reference`` in the project's root after a change of the models; a
test holds the committed files against the generated ones.
"""

import sys
import textwrap
from pathlib import Path

from pydantic.fields import FieldInfo

from gpuwarden import names
from gpuwarden.config.explain import sections
from gpuwarden.config.formats import format_size
from gpuwarden.config.models import Configuration
from gpuwarden.config.problems import toml_value
from gpuwarden.config.settings import Section, allowed_values, extra_of, table_of

SHIPPED_FILE = Path("packaging/etc/gpuwarden.toml")
DOCUMENTATION_FILE = Path("docs/configure.md")

_FILE_HEAD = f"""\
# Configuration of gpuwarden, with every setting at its default.
#
# Lines that begin with "# " explain. Lines that begin with "#" and a key are settings: remove the
# "#" and change the value. Rather than here, put your own settings into a file of their own:
# {names.CONFIG_DIRECTORY}/*.toml are read after this file, in the order of their names, and win key
# by key; so an upgrade has nothing to ask you.
#
#   gpuwarden config check      tells what is wrong, with file and line
#   gpuwarden reload            lets the running service take the new settings
#
# Sizes are bytes, or strings in powers of 1024: "512M", "16G".
"""

_PAGE_HEAD = f"""\
# Configure

<!-- Generated from the models by "python -m gpuwarden.config.reference". Don't edit. -->

`{names.CONFIG_FILE}` is read first, then `{names.CONFIG_DIRECTORY}/*.toml` in the order of their
names (hidden files are left out). Tables are merged key by key, and the last file that sets a key
wins; a list is replaced as a whole. A file that isn't there means the defaults, so an empty
configuration is a good one.

```console
gpuwarden config check            # the installed files, as the service would read them
gpuwarden config check FILE       # one file, before you install it
gpuwarden reload                  # let the running service take the new settings
```

`config check` prints every problem of every file at once, with file, line, key, what was found and
what is allowed. It exits 0 when all is well, 1 when something is wrong and 2 when it was called
wrongly. A service that is running never dies of a bad file: it keeps its settings and says so.

```
/etc/gpuwarden/conf.d/50-site.toml:7: workers.max_batsh: found an unknown key; did you mean \
max_batch?; allowed: workers_per_gpu, python, ...
```

Nothing is converted: text stays in quotes, numbers stay out of them, and unknown keys are refused.
Sizes are bytes, or strings in powers of 1024: `"512M"`, `"16G"`, `"1.5G"`.
"""

_PAGE_TAIL = """\
## Settings that must fit each other

- `gateway.body_limit_bytes` is at most `gateway.queue_limit_bytes` and `gateway.pool_bytes`: a
  larger request would be accepted by one limit and never fit into the other.
- `thermal.safe_celsius` is below `thermal.alert_celsius`, and that is below
  `thermal.critical_celsius`, of those that are set; with each card's own values, too.
- What is set must also fit what each card says of itself, which its thermal guard checks: critical
  at least 5 C below the card's shutdown, and in order with the thresholds that are not set. A guard
  that can't take the thresholds goes by its card's own, and says so.
- A table `[thermal.cards."GPU-..."]` is for a card that this node has. `gpuwarden config check` and
  `gpuwarden reload` say so if it isn't.
- `placement.housekeeping_cpus` names CPUs that this node has, one of them online at least, and not
  all of them. A first start with a file that doesn't fit the node works as far as it can and says
  so; a reload, or a restart of the guard, keeps the former settings.
- With `workers.engine = "command"`, `[workers.options]` describes [a server](vllm.md#options) as a
  whole, and `workers.network` is not `"none"`.
- No hook posts to our own front door, wherever `systemctl edit medgemma-gateway.socket` has put it.
"""

_EXAMPLES = {
    "options": """\
[workers.options]
precision = "bf16"
max_new_tokens = 512
""",
    "cards": """\
[thermal.cards."GPU-8f3a2b1c-0d4e-4f5a-9b6c-7d8e9f0a1b2c"]
alert_celsius = 70
critical_celsius = 80
""",
    "hooks": """\
[[thermal.hooks]]
on = ["alert", "critical"]
post = "http://127.0.0.1:7861/api/thermal_mode?mode=eco"

[[thermal.hooks]]
on = ["normal"]
post = "http://127.0.0.1:7861/api/thermal_mode?mode=normal"

[[thermal.hooks]]
on = ["blind", "lost"]
command = ["/usr/local/bin/page-me", "gpu"]
timeout_seconds = 20
""",
}


def shipped_file() -> str:
    """The commented file; with every setting uncommented it means the defaults."""
    parts = [_FILE_HEAD]
    for name, model in sections():
        defaults = getattr(Configuration(), name)
        parts.append(f"\n# {_first_line(model)}\n[{name}]\n")
        tables = []
        for key, field in model.model_fields.items():
            if key in _EXAMPLES:
                tables.append(f"\n{_comment(field)}{_shipped_tables(key, field)}")
            else:
                value = _written(getattr(defaults, key), field)
                parts.append(f"\n{_comment(field)}#{key} = {value}\n")
        parts += tables
    return "".join(parts)


def _shipped_tables(key: str, field: FieldInfo) -> str:
    """What stands in the tables of a setting, and an example to uncomment."""
    example = textwrap.indent(_EXAMPLES[key], "#   ", lambda _line: True)
    example = "# For example:\n" + example.replace("#   \n", "#\n")
    inner = table_of(field)
    if inner is None:
        return example
    keys = "".join(
        _wrapped(f"{name}: {each.description} Allowed: {allowed_values(each)}.", "#   ", "#     ")
        for name, each in inner.model_fields.items()
    )
    return f"# Keys of each table:\n{keys}{example}"


def documentation() -> str:
    """The manual page of every setting."""
    parts = [_PAGE_HEAD]
    for name, model in sections():
        defaults = getattr(Configuration(), name)
        parts.append(f"\n## [{name}]\n\n{_first_line(model)}\n")
        for key, field in model.model_fields.items():
            default = _written(getattr(defaults, key), field)
            parts.append(f"\n### {key}\n\n{_described(field, default)}")
            inner = table_of(field)
            if inner is not None:
                parts.append(f"\n```toml\n{_EXAMPLES[key]}```\n")
                parts += [
                    f"\n#### {key}: {inner_key}\n\n{_described(each, _inner_default(each))}"
                    for inner_key, each in inner.model_fields.items()
                ]
    return "".join([*parts, "\n", _PAGE_TAIL])


def _described(field: FieldInfo, default: str) -> str:
    return (
        f"{_wrapped(str(field.description))}\n"
        f"- default: {f'`{default}`' if default else 'none'} ({_why(field)})\n"
        f"- allowed: {allowed_values(field)}\n"
    )


def _inner_default(field: FieldInfo) -> str:
    """As it would be written; empty where it must or need not be."""
    if field.is_required() or field.default is None:
        return ""
    return _written(field.default, field)


def _comment(field: FieldInfo) -> str:
    lines = (
        str(field.description),
        f"Allowed: {allowed_values(field)}.",
        f"Why this default: {_why(field)}.",
    )
    return "".join(_wrapped(line, "# ") for line in lines)


def _why(field: FieldInfo) -> str:
    return extra_of(field, "why")


def _written(value: object, field: FieldInfo) -> str:
    if extra_of(field, "unit") == "bytes" and isinstance(value, int):
        return toml_value(format_size(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return toml_value(value)


def _wrapped(text: str, prefix: str = "", further: str | None = None) -> str:
    """Lines of a screen's width; ``further`` is the prefix of all but the first."""
    lines = textwrap.wrap(
        text,
        98 + len("# ") if prefix else 98,
        break_long_words=False,
        break_on_hyphens=False,
        initial_indent=prefix,
        subsequent_indent=prefix if further is None else further,
    )
    return "".join(f"{line}\n" for line in lines)


def _first_line(model: type[Section]) -> str:
    return (model.__doc__ or "").splitlines()[0]


def main(root: Path = Path()) -> int:
    """Write both files below the project's root."""
    for file, content in ((SHIPPED_FILE, shipped_file()), (DOCUMENTATION_FILE, documentation())):
        (root / file).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
