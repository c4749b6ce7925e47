# SPDX-License-Identifier: Apache-2.0
"""``make run``: the main job on a real node, shown step by step."""

import json
import sys
import time
from pathlib import Path

from pydicom.data import get_testdata_file

from tests.node.levels import installed_node
from tests.node.vm import Node

QUESTION = "What are the pixel statistics of this image?"
ASK = (
    "curl --silent --show-error --max-time 60 -F 'image=@/tmp/ct.dcm;type=application/dicom' "
    f"-F 'question={QUESTION}' http://127.0.0.1:7860/predict"
)


def ct_small() -> bytes:
    """pydicom's ``CT_small.dcm``: a real CT slice, 128 x 128 pixels of 16 bit."""
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    return Path(path).read_bytes()


def show(title: str, text: str) -> None:
    """Print one step."""
    print(f"\n== {title}\n{text}", flush=True)


def kernel_view(node: Node) -> str:
    """Where the workers run and what limits them, from /proc and the cgroup files alone."""
    return node.run(
        r"""
for unit in $(systemctl list-units --plain --no-legend 'medgemma-worker@*' | awk '{print $1}'); do
    pid=$(systemctl show -P MainPID $unit)
    group=$(sed 's/^0:://' /proc/$pid/cgroup)
    printf '%s\n  cgroup      %s\n  CPUs        %s\n  memory node %s\n  memory.max  %s\n' \
        $unit $group "$(awk '/^Cpus_allowed_list/ {print $2}' /proc/$pid/status)" \
        "$(head -1 /proc/$pid/numa_maps | awk '{print $2}')" \
        "$(cat /sys/fs/cgroup$group/memory.max)"
done"""
    ).text


def main() -> int:
    """Boot the node, ask about a DICOM image, show answer, state, kernel's view and bus."""
    began = time.monotonic()
    with installed_node() as node:
        show(
            "a node with the packages installed and medgemma-guard started",
            node.run("cat /etc/debian_version; systemctl is-active medgemma-guard").text,
        )
        node.put(ct_small(), "/tmp/ct.dcm")
        answer = json.loads(node.run(ASK).text)
        show("the answer to CT_small.dcm", json.dumps(answer, indent=2))
        show("gpuwarden status", node.run("gpuwarden status", check=False).text)
        show("the workers, as the kernel reports them", kernel_view(node))
        show("busctl tree org.gpuwarden1", node.run("busctl tree --list org.gpuwarden1").text)
        ok = "answer" in answer
    print(f"\n{'done' if ok else 'FAILED'} in {time.monotonic() - began:.1f} s")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
