# SPDX-License-Identifier: Apache-2.0
"""Write the shipped interface files: ``python -m gpuwarden.bus.objects packaging/dbus``."""

import sys
from pathlib import Path

from gpuwarden.bus.introspection import documented_xml
from gpuwarden.bus.objects.publisher import INTERFACES


def main(folder: str) -> None:
    """Write one file an interface into ``folder``."""
    for interface in INTERFACES:
        path = Path(folder) / f"{interface.name}.xml"
        path.write_text(documented_xml(interface), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
