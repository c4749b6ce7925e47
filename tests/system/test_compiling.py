# SPDX-License-Identifier: Apache-2.0
"""Under its unit's hardening a worker can compile, run what it compiled, and keep it."""

import subprocess
from pathlib import Path
from typing import Any

from tests.node.vm import Node
from tests.system.service import curl, wait_for

HERE = Path(__file__).parent
CONFIG = '[workers]\nengine_path = ["/opt/models"]\nengine = "compiled:Compiled"\n'
UNIT = "medgemma-worker@0"
# Stands for a compiler, which the node has not: what it "makes" was made beside the tests.
GCC = '#!/bin/sh\nfor last; do :; done\nexec cp /opt/models/made.so "$last"\n'
DOCTOR = "gpuwarden doctor --all"
MODEL = '[workers]\nengine = "transformers"\n[workers.options]\npath = "/srv/m"\n'


def restart(node: Node) -> None:
    node.run(f"systemctl restart {UNIT}", timeout_seconds=120)
    wait_for(node, f"systemctl show -P StatusText {UNIT} | grep -q ^ready")


def found(node: Node) -> dict[str, Any]:
    asked = curl(node, "-F image=@/etc/hostname -F question=x", "/predict")
    answer: dict[str, Any] = asked.body["answer"]
    return answer


def test_a_worker_compiles_and_keeps_what_it_compiled(node: Node, tmp_path: Path) -> None:
    node.run("mkdir -p /opt/models /etc/gpuwarden/conf.d; gpuwarden workers stop 1")
    node.put((HERE / "compiled.py").read_bytes(), "/opt/models/compiled.py")
    node.put(CONFIG.encode(), "/etc/gpuwarden/conf.d/90-test.toml")
    node.run("gpuwarden reload", timeout_seconds=120)
    restart(node)
    bare = found(node)
    assert "there is no C compiler in PATH" in bare.pop("trouble")
    assert bare == {"written_and_run": 42, "kept": False, "offline": ["1", "1"]}

    source, library = tmp_path / "made.c", tmp_path / "made.so"
    source.write_text("int gpuwarden(void) { return 42; }\n")
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    node.put(library, "/opt/models/made.so")
    node.put(GCC.encode(), "/usr/local/bin/gcc", 0o755)
    node.run("d=/usr/include/python3.11; mkdir -p $d; touch $d/Python.h")
    restart(node)
    assert found(node) == bare | {"trouble": "", "kept": True}

    node.put(MODEL.encode(), "/etc/gpuwarden/conf.d/90-test.toml")
    node.run("gpuwarden reload", timeout_seconds=120)
    seen = node.run(DOCTOR, check=False).text
    for words in ("/usr/local/bin/gcc", "/usr/include/python3.11/Python.h"):
        assert words in seen
