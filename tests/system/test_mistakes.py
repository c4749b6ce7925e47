# SPDX-License-Identifier: Apache-2.0
"""A newcomer's mistakes: each gets words that say what to do, and everything else goes on."""

import io

import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.node.demo import ct_small
from tests.node.vm import Node
from tests.system.service import (
    curl,
    main_pid,
    predict,
    status,
    wait_for,
    wait_for_next_life,
    wait_for_state,
)

CONFIG = "/etc/gpuwarden/conf.d/90-test.toml"


@pytest.fixture
def node(shared_node: Node) -> Node:
    """What these do wrong they put right again; but for those with a node of their own."""
    return shared_node


def configure(node: Node, text: str) -> None:
    node.run("mkdir -p /etc/gpuwarden/conf.d")
    node.put(text.encode(), CONFIG)


def test_a_misspelt_key_is_named_and_the_running_service_keeps_what_it_had(node: Node) -> None:
    before = main_pid(node, "medgemma-worker@0")
    configure(node, "[workers]\nmemory_max_byts = '1G'\n")
    checked = node.run("gpuwarden config check", check=False)
    assert checked.status == 1
    for word in (CONFIG, "2", "memory_max_byts", "memory_max_bytes"):
        assert word in checked.text + checked.error_text
    reloaded = node.run("systemctl reload medgemma-guard", check=False)
    assert reloaded.status != 0
    wait_for(node, "systemctl show -P StatusText medgemma-guard | grep -q memory_max_byts")
    assert main_pid(node, "medgemma-worker@0") == before
    # A worker that dies meanwhile comes back with the configuration that was accepted.
    node.run(f"kill -KILL {before}")
    wait_for_next_life(node, "medgemma-worker@0", before)
    node.run(f"rm {CONFIG}; systemctl reload medgemma-guard")
    wait_for_state(node, "running")


def test_a_start_with_mistakes_is_refused_or_says_what_is_wrong(node: Node) -> None:
    node.run("systemctl stop medgemma-guard", timeout_seconds=120)
    a_first_start_with_a_misspelt_key_is_refused_in_words(node)
    node.run(f"systemctl stop medgemma-guard; systemctl reset-failed; rm {CONFIG}")
    a_taken_port_is_reported_with_its_holder_and_opened_when_free(node)


def a_first_start_with_a_misspelt_key_is_refused_in_words(node: Node) -> None:
    configure(node, "[gateway]\nqueue_limt = 5\n")
    assert node.run("systemctl start medgemma-guard", check=False).status != 0
    shown = node.run("systemctl status --no-pager medgemma-guard", check=False).text
    assert "queue_limt" in shown
    assert CONFIG in shown
    assert node.run("systemctl is-active medgemma-thermal@0").text == "active"


def a_taken_port_is_reported_with_its_holder_and_opened_when_free(node: Node) -> None:
    node.run("systemd-run --unit=gradio python3 -m http.server --bind 127.0.0.1 7860")
    wait_for(node, "curl -s -o /dev/null http://127.0.0.1:7860/")
    node.run("systemctl start medgemma-guard", check=False)
    wait_for(node, "systemctl show -P StatusText medgemma-guard | grep -q 'is held by python3'")
    holder = main_pid(node, "gradio")
    assert f"PID {holder}" in node.run("systemctl status --no-pager medgemma-guard").text
    wait_for(node, "systemctl is-active -q medgemma-worker@1")
    wait_for_state(node, "degraded")
    node.run("systemctl stop gradio")
    wait_for_state(node, "running")


def test_a_worker_that_cannot_start_says_why_and_the_other_goes_on(own_node: Node) -> None:
    a_missing_interpreter_is_named(own_node)
    a_model_class_that_raises_in_load_is_named(own_node)


def a_missing_interpreter_is_named(node: Node) -> None:
    configure(node, "[workers]\npython = '/opt/conda/bin/python'\n")
    node.run("systemctl reload medgemma-guard; systemctl restart medgemma-worker@0", check=False)
    wait_for(node, "systemctl show -P StatusText medgemma-worker@0 | grep -q /opt/conda/bin/python")
    wait_for_state(node, "degraded")
    assert any("/opt/conda/bin/python" in reason for reason in status(node)["reasons"])
    assert node.run("systemctl is-active medgemma-worker@1").text == "active"


def a_model_class_that_raises_in_load_is_named(node: Node) -> None:
    node.run("mkdir -p /srv/models")
    node.put(
        b"from gpuwarden.worker.engine import Engine\n"
        b"class Broken(Engine):\n"
        b"    def load(self, context):\n"
        b"        raise RuntimeError('weights not found in /srv/weights')\n",
        "/srv/models/broken.py",
    )
    configure(node, "[workers]\nengine = 'broken:Broken'\nengine_path = ['/srv/models']\n")
    node.run(
        "systemctl reload medgemma-guard; systemctl reset-failed; "
        "systemctl restart medgemma-worker@0",
        check=False,
    )
    wait_for(
        node,
        "systemctl status --no-pager medgemma-worker@0 | grep -q 'weights not found'",
        timeout_seconds=90,
    )
    node.put(ct_small(), "/tmp/ct.dcm")
    assert predict(node, "/tmp/ct.dcm").body["worker"] == 1


def without_pixels() -> bytes:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    del dataset.PixelData
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "status_code", "words"),
    [
        (b"this is no image at all", 422, "DICOM"),
        (b"", 400, "empty"),
        (without_pixels(), 422, "pixel"),
        (ct_small()[:2000], 422, ""),
    ],
    ids=["no image", "empty", "no pixel data", "cut short"],
)
def test_a_bad_upload_is_answered_in_words(
    node: Node, content: bytes, status_code: int, words: str
) -> None:
    node.put(content, "/tmp/upload")
    answer = predict(node, "/tmp/upload", "application/dicom")
    assert answer.status == status_code, answer.body
    assert words in answer.message
    node.put(ct_small(), "/tmp/ct.dcm")
    assert predict(node, "/tmp/ct.dcm").status == 200
    wait_for_state(node, "running")


def test_an_upload_of_300_mb_is_refused_before_it_is_read(node: Node) -> None:
    node.run("truncate -s 300M /tmp/huge")
    answer = curl(node, "-H 'Expect: 100-continue' -F image=@/tmp/huge", "/predict")
    assert answer.status == 413
    assert "body_limit_bytes" in answer.message
    node.put(ct_small(), "/tmp/ct.dcm")
    assert predict(node, "/tmp/ct.dcm").status == 200
