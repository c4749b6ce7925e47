# SPDX-License-Identifier: Apache-2.0
"""docs/metrics.md, made from the metrics' definitions: ``python -m tools.metrics_table``."""

from collections.abc import Iterable
from pathlib import Path

from gpuwarden.exposition.definition import Definition
from gpuwarden.gateway.meters import METERS as OF_GATEWAY
from gpuwarden.metrics.meters import METERS as OF_NODE

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"

_HEAD = """\
# Metrics

Two pages for Prometheus: the node's on `http://127.0.0.1:9835/metrics` (`medgemma-metrics`), and
the front door's on `http://127.0.0.1:7860/metrics`.
[How to connect them](prometheus.md).

A value that is unknown, or older than three seconds, is left out, never invented:
`gpuwarden_component_stale` says whose values are missing. A counter begins anew with its process,
or with the boot where it says so. No text of any request is in a name or a label.

This page is made from the metrics' definitions.
"""
_TABLE = "| metric | kind | labels | means |\n|---|---|---|---|\n"


def document() -> str:
    """The page."""
    return "\n".join(
        (
            _HEAD,
            f"## The node\n\n{_TABLE}{_rows(OF_NODE)}",
            f"## The front door\n\n{_TABLE}{_rows(OF_GATEWAY)}",
        )
    )


def _rows(definitions: Iterable[Definition]) -> str:
    return "".join(_row(each) for each in definitions)


def _row(metric: Definition) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
