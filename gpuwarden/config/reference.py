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
from gpuwarden.config.settings import Section, allowed_values, extra_of

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

```sh
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
"""

_OPTIONS_EXAMPLE = ('precision = "bf16"', "max_new_tokens = 512")


def shipped_file() -> str:
    """The commented file; with every setting uncommented it means the defaults."""
    parts = [_FILE_HEAD]
    for name, model in sections():
        defaults = getattr(Configuration(), name)
        parts.append(f"\n# {_first_line(model)}\n[{name}]\n")
        tables = []
        for key, field in model.model_fields.items():
            value = getattr(defaults, key)
            comment = _comment(field)
            if isinstance(value, dict):
                example = "".join(f"#   {line}\n" for line in _OPTIONS_EXAMPLE)
                tables.append(f"\n{comment}# For example:\n{example}#[{name}.{key}]\n")
            else:
                parts.append(f"\n{comment}#{key} = {_written(value, field)}\n")
        parts += tables
    return "".join(parts)


def documentation() -> str:
    """The manual page of every setting."""
    parts = [_PAGE_HEAD]
    for name, model in sections():
        defaults = getattr(Configuration(), name)
        parts.append(f"\n## [{name}]\n\n{_first_line(model)}\n")
        for key, field in model.model_fields.items():
            default = _written(getattr(defaults, key), field)
            parts.append(
                f"\n### {key}\n\n{_wrapped(str(field.description))}\n"
                f"- default: `{default}` ({_why(field)})\n"
                f"- allowed: {allowed_values(field)}\n"
            )
    return "".join([*parts, "\n", _PAGE_TAIL])


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


def _wrapped(text: str, prefix: str = "") -> str:
    lines = textwrap.wrap(text, 98, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{line}\n" for line in textwrap.indent("\n".join(lines), prefix).splitlines())


def _first_line(model: type[Section]) -> str:
    return (model.__doc__ or "").splitlines()[0]


def main(root: Path = Path()) -> int:
    """Write both files below the project's root."""
    for file, content in ((SHIPPED_FILE, shipped_file()), (DOCUMENTATION_FILE, documentation())):
        (root / file).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
