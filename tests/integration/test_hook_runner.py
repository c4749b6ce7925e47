# SPDX-License-Identifier: Apache-2.0
"""A hook as the process that it is: against a real server, with a real command."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.guard.hooks import TOLD_EXIT_STATUS
from gpuwarden.values import ThermalState
from tests.integration.hook_node import HookNode, Page, page
from tests.waiting import wait_until


@pytest.fixture
def node(tmp_path: Path) -> HookNode:
    node = HookNode(tmp_path)
    node.publish(ThermalState.ALERT)
    return node


@pytest.fixture
def gradio() -> Iterator[Page]:
    with page() as running:
        yield running


def post_hook(url: str, on: str = "alert", timeout_seconds: float = 5) -> str:
    return (
        f"[[thermal.hooks]]\non = ['{on}']\npost = '{url}'\ntimeout_seconds = {timeout_seconds}\n"
    )


def command_hook(*command: str, timeout_seconds: float = 5) -> str:
    words = ", ".join(f"'''{word}'''" for word in command)
    return (
        f"[[thermal.hooks]]\non = ['alert']\ncommand = [{words}]\n"
        f"timeout_seconds = {timeout_seconds}\n"
    )


def fails(node: HookNode, *words: str, instance: str = "0-0") -> str:
    """The one line in which a hook says why it has failed."""
    finished = node.run(instance)
    assert finished.returncode == TOLD_EXIT_STATUS
    (line,) = finished.stderr.splitlines()
    for word in (f"thermal.hooks[{instance[0]}]", "for GPU 0 failed: ", *words):
        assert word in line
    return line


def is_running(pid: str) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_the_articles_page_is_told_what_happened(node: HookNode, gradio: Page) -> None:
    node.configure(post_hook(f"{gradio.url}?mode=eco"))
    finished = node.run("0-0", http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")
    assert finished.returncode == 0, finished.stderr
    assert gradio.heard == [
        (
            "/api/thermal_mode?mode=eco",
            {
                "gpu": 0,
                "gpu_uuid": "GPU-00000000",
                "state": "alert",
                "temperature_celsius": 79.0,
                "reason": 'die 79 C, "alert" is\n78 C',
            },
        )
    ]


def test_a_command_has_what_happened_in_its_environment_and_nothing_else(
    node: HookNode, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    node.configure(command_hook("/bin/sh", "-c", f'env >{out}; echo "$1" >>{out}', "sh", "$HOME;"))
    finished = node.run("0-0", SECRET="1", LD_LIBRARY_PATH="/nowhere")
    assert finished.returncode == 0, finished.stderr
    *variables, argument = out.read_text().splitlines()
    assert argument == "$HOME;"
    told = dict(line.split("=", 1) for line in variables)
    assert told["GPUWARDEN_GPU"] == "0"
    assert told["GPUWARDEN_GPU_UUID"] == "GPU-00000000"
    assert told["GPUWARDEN_STATE"] == "alert"
    assert told["GPUWARDEN_TEMPERATURE_CELSIUS"] == "79"
    assert told["GPUWARDEN_REASON"] == 'die 79 C, "alert" is\\n78 C'
    ours = {name for name in told if not name.startswith("GPUWARDEN_")}
    assert ours == {"PATH", "LANG", "PWD", *({"SHLVL", "_"} & ours)}


def test_a_card_that_has_left_the_state_is_not_spoken_of(node: HookNode, gradio: Page) -> None:
    node.configure(post_hook(gradio.url))
    node.publish(ThermalState.NORMAL)
    finished = node.run("0-0")
    assert finished.returncode == 0
    assert "nothing to tell, the card is normal by now" in finished.stderr
    assert gradio.heard == []


@pytest.mark.parametrize("there", [True, False])
def test_a_card_whose_guard_is_silent_is_blind(node: HookNode, gradio: Page, there: bool) -> None:
    node.configure(post_hook(gradio.url, on="blind"))
    if there:
        node.publish(ThermalState.ALERT, valid=0)
    else:
        (node.root / "thermal-0.json").unlink()
    assert node.run("0-0").returncode == 0
    ((_, body),) = gradio.heard
    assert body == {
        "gpu": 0,
        "gpu_uuid": "GPU-00000000" if there else "",
        "state": "blind",
        "temperature_celsius": None,
        "reason": "its thermal guard says nothing",
    }


def test_an_answer_other_than_good_is_a_failure_and_a_redirect_is_not_followed(
    node: HookNode, gradio: Page
) -> None:
    node.configure(post_hook(f"{gradio.url}?token=secret"))
    gradio.status = 500
    line = fails(node, f"({gradio.url})", "it answered 500 Internal Server Error")
    assert "secret" not in line
    gradio.status, gradio.location = 302, f"http://127.0.0.1:{gradio.port}/elsewhere"
    fails(node, "it answered 302")
    assert [path for path, _ in gradio.heard] == ["/api/thermal_mode?token=secret"] * 2


def test_a_server_that_is_silent_or_absent_or_no_http_is_a_failure(
    node: HookNode, gradio: Page
) -> None:
    gradio.gate.clear()
    node.configure(post_hook(gradio.url, timeout_seconds=0.5))
    fails(node, "no answer in 0.5 s")
    gradio.gate.set()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    node.configure(post_hook(f"http://127.0.0.1:{port}/"))
    fails(node, "Connection refused")
    node.configure(post_hook(f"https://127.0.0.1:{gradio.port}/"))
    fails(node, "SSL")
    node.configure(post_hook(f"http://{'a' * 64}/"))
    fails(node, "failed: ")


def test_a_command_that_fails_is_told_with_how(node: HookNode) -> None:
    node.configure(
        command_hook("/bin/false")
        + command_hook("/bin/sh", "-c", "kill -9 $$")
        + command_hook("/nowhere/page-me")
        + command_hook("/etc/passwd")
    )
    fails(node, "(/bin/false)", "exit status 1")
    fails(node, "killed by signal 9", instance="1-0")
    fails(node, "it can't be run: No such file or directory", instance="2-0")
    fails(node, "it can't be run: Permission denied", instance="3-0")


def test_a_command_that_takes_too_long_is_killed_with_its_children(
    node: HookNode, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 1000 & echo $! $$ >{pids}; wait"
    node.configure(command_hook("/bin/sh", "-c", script, timeout_seconds=1))
    fails(node, "(/bin/sh)", "not done in 1 s, so it was killed")
    wait_until(lambda: not any(is_running(pid) for pid in pids.read_text().split()))


def test_a_hook_that_is_gone_and_a_configuration_that_is_wrong_are_told(node: HookNode) -> None:
    node.configure("")
    fails(node, "no such hook in the configuration any more")
    node.configure("[thermal]\npolicy = 'gentle'\n")
    fails(node, "gpuwarden.toml:2: thermal.policy")


@pytest.mark.parametrize("instance", ["", "0", "0-", "-1-0", "0-0-0", "a-b", "0-0\n", "٣-0"])
def test_an_instance_that_is_no_hook_and_card_is_bad_use(node: HookNode, instance: str) -> None:
    assert node.run(instance).returncode == 2
