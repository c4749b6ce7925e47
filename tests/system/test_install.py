# SPDX-License-Identifier: Apache-2.0
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_compiled_ahead import never_imported
from tests.node import levels
from tests.node.vm import Node
from tests.system.service import curl

NEVER_IMPORTED = never_imported()

# Under emulation each start of the service costs half a minute: what takes longest runs on one of
# the two, the life of the package from installation to purge on both.
SUITES = ("bookworm", "trixie")
# The engine that needs nothing but Python: Debian 13's image has no libraries for images.
ECHO = '[workers]\nengine = "echo"\n'
RUNNING_UNITS = (
    "medgemma-guard",
    "medgemma-gateway",
    "medgemma-thermal@0",
    "medgemma-thermal@1",
    "medgemma-scan@0",
    "medgemma-scan@1",
    "medgemma-worker@0",
    "medgemma-worker@1",
)
DPKG_SECONDS = 300.0
# What Debian's own tools write about any package that comes and goes; and systemd's secret of this
# host, which it makes on its first use: others' credentials may be sealed with it since.
DEBIANS_OWN = re.compile(
    r"/var/log/|/var/cache/(man|ldconfig|debconf)|/var/lib/dpkg/[^/]*-old$|/var/lib/systemd/catalog"
    r"|/etc/(passwd|group|shadow|gshadow)-$|/var/lib/systemd/(timers|coredump|linger|credential\.secret)"
)


@pytest.fixture(params=SUITES)
def node(request: pytest.FixtureRequest, nodes: Callable[..., Node]) -> Node:
    """Both packages are installed, the service was never started."""
    machine = levels.machine(request.param)
    return nodes(levels.continued, machine, levels.unstarted_level(machine, levels.debs()))


def added_files(node: Node) -> set[str]:
    """Paths that are on the node's disk now and were not before the installation."""
    before = set(node.get(levels.FILES_BEFORE).decode().splitlines())
    now = set(node.run(levels.LIST_FILES).text.splitlines())
    return {path for path in now - before if not DEBIANS_OWN.search(path)}


def units(node: Node, *states: str) -> list[str]:
    """Our units that are loaded, in one of ``states`` if any is named."""
    chosen = f"--state={','.join(states)}" if states else "--all"
    listed = node.run(f"systemctl list-units --plain --no-legend {chosen} 'medgemma*' 'gpuwarden*'")
    return [line.split()[0] for line in listed.text.splitlines()]


def our_processes(node: Node) -> str:
    return node.run("pgrep --list-full --full '/usr/lib/gpuwarden/'", check=False).text


def main_pids(node: Node) -> dict[str, str]:
    return {u: node.run(f"systemctl show -P MainPID {u}").text for u in RUNNING_UNITS}


def newer(package: Path, folder: Path) -> Path:
    """The package as a later version of itself."""
    tree, target = folder / package.stem, folder / f"newer-{package.name}"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"0\.1\.0", "0.1.1~test", control.read_text()))
    build = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(target)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return target


def test_what_an_installation_does_and_what_it_leaves_to_the_operator(node: Node) -> None:
    nothing_runs_after_installation(node)
    installation_makes_users_and_folders(node)
    command_works_and_is_compiled_ahead(node)
    page_without_cockpit_says_what_it_lacks(node)


def nothing_runs_after_installation(node: Node) -> None:
    assert units(node, "active", "activating", "failed") == []
    assert our_processes(node) == ""
    assert node.run("systemctl is-enabled medgemma-guard", check=False).text == "disabled"
    assert node.run("ss -Hltn 'sport = :7860'").text == ""
    assert node.run("systemctl --failed --plain --no-legend").text == ""


def installation_makes_users_and_folders(node: Node) -> None:
    folders = "/run/gpuwarden /run/gpuwarden/gateway /var/lib/gpuwarden /var/lib/gpuwarden/jobs"
    modes = node.run(f"stat --format '%n %U %a' {folders}").text.splitlines()

    assert modes == [
        "/run/gpuwarden root 755",
        "/run/gpuwarden/gateway gpuwarden-gateway 755",
        "/var/lib/gpuwarden root 755",
        "/var/lib/gpuwarden/jobs gpuwarden-gateway 700",
    ]
    for user in ("gpuwarden-worker", "gpuwarden-gateway"):
        assert node.run(f"id --name --groups {user}").text == user
    assert node.run("getent group gpuwarden").text.endswith(":")


def page_without_cockpit_says_what_it_lacks(node: Node) -> None:
    (page,) = levels.DIST.glob("cockpit-gpuwarden_*.deb")
    node.put(page, "/root/page.deb")
    done = node.run("dpkg --install /root/page.deb", check=False, timeout_seconds=DPKG_SECONDS)
    assert done.status != 0
    assert "cockpit-bridge (>= 287); however:\n  Package cockpit-bridge is not installed" in (
        done.text + done.error_text
    )
    node.run("dpkg --remove cockpit-gpuwarden", timeout_seconds=DPKG_SECONDS)
    assert node.run("gpuwarden version").text.startswith("gpuwarden ")
    assert node.run("dpkg --audit").text == ""


def command_works_and_is_compiled_ahead(node: Node) -> None:
    assert "0.1.0" in node.run("gpuwarden version").text
    found = node.run("find /usr/lib/gpuwarden/app /usr/lib/gpuwarden/vendor -name '*.py*'").text
    sources = {
        Path(path)
        for path in found.splitlines()
        if path.endswith(".py") and not NEVER_IMPORTED.search(path)
    }
    compiled = {Path(path) for path in found.splitlines() if path.endswith(".pyc")}
    assert len(sources) > 100
    assert sources == {path.parents[1] / f"{path.name.split('.')[0]}.py" for path in compiled}


def test_a_running_service_is_upgraded_and_removed(own_node: Node, tmp_path: Path) -> None:
    upgrade_restarts_all_but_the_workers(own_node, tmp_path)
    removal_stops_everything_and_keeps_what_is_the_operators(own_node)


def upgrade_restarts_all_but_the_workers(node: Node, tmp_path: Path) -> None:
    node.run("echo '# the operator was here' >> /etc/gpuwarden/gpuwarden.toml")
    before = main_pids(node)
    cursor = node.run("journalctl --lines=0 --show-cursor").text.split("cursor: ")[-1]

    levels.install(node, [newer(package, tmp_path) for package in levels.debs()])

    after = main_pids(node)
    unchanged = {unit for unit in RUNNING_UNITS if before[unit] == after[unit] != "0"}
    assert unchanged == {"medgemma-worker@0", "medgemma-worker@1"}
    assert units(node, "failed") == []
    # Not --unit= too: with it journalctl 252 swallows the first entry after the cursor.
    lines = node.run(f"journalctl --after-cursor='{cursor}' --output=cat").text
    events = re.findall(r"^(Stopping|Started) medgemma-thermal@(\d)", lines, re.MULTILINE)
    one_by_one = [("Stopping", "0"), ("Started", "0"), ("Stopping", "1"), ("Started", "1")]
    assert events == one_by_one, lines
    assert "the operator was here" in node.get("/etc/gpuwarden/gpuwarden.toml").decode()
    node.wait_until(levels.STATE_COMMAND, r'^s "running"$', levels.RUNNING_SECONDS)


def removal_stops_everything_and_keeps_what_is_the_operators(node: Node) -> None:
    node.run("systemctl enable medgemma-guard")
    node.run("echo > /etc/gpuwarden/conf.d/10-site.toml")

    node.run("dpkg --remove gpuwarden-simulator gpuwarden", timeout_seconds=DPKG_SECONDS)

    assert units(node, "active", "activating", "failed") == []
    assert our_processes(node) == ""
    assert (
        node.run("pgrep --list-full --uid gpuwarden-worker,gpuwarden-gateway", check=False).text
        == ""
    )
    assert node.run("ls -A /run/systemd/system; ls -d /run/gpuwarden*", check=False).text == ""
    left = {path for path in added_files(node) if not path.startswith("/var/lib/dpkg/info/")}
    assert {path for path in left if path.startswith("/usr")} == set()
    assert left >= {"/etc/gpuwarden/gpuwarden.toml", "/etc/gpuwarden/conf.d/10-site.toml"}
    assert "/var/lib/gpuwarden/cards.json" in left

    node.run("dpkg --purge gpuwarden-simulator gpuwarden", timeout_seconds=DPKG_SECONDS)

    assert added_files(node) == set()


@pytest.mark.parametrize("node", ["trixie"], indirect=True)
def test_purge_of_a_running_service_leaves_nothing(node: Node) -> None:
    levels.start_service(node, ECHO)

    node.run("dpkg --purge gpuwarden-simulator gpuwarden", timeout_seconds=DPKG_SECONDS)

    assert added_files(node) == set()
    assert units(node) == []
    assert our_processes(node) == ""


@pytest.mark.parametrize("node", ["bookworm"], indirect=True)
def test_a_node_without_the_simulator_has_no_card_unless_it_has_a_real_one(node: Node) -> None:
    node.run("dpkg --purge gpuwarden-simulator", timeout_seconds=DPKG_SECONDS)
    service_without_a_card_says_so_and_stays_inspectable(node)
    simulator_refuses_a_machine_with_nvidias_driver(node)


def service_without_a_card_says_so_and_stays_inspectable(node: Node) -> None:
    node.run("systemctl start medgemma-guard")

    node.wait_until(levels.STATE_COMMAND, r'^s "degraded"$', levels.RUNNING_SECONDS)
    assert "driver" in node.run("systemctl show -P StatusText medgemma-guard").text
    assert "/org/gpuwarden1" in node.run("busctl tree org.gpuwarden1").text
    assert curl(node, "", "/readyz").status == 503


def simulator_refuses_a_machine_with_nvidias_driver(node: Node) -> None:
    node.run("mkdir -p /tmp/driver/nvidia && echo 570 > /tmp/driver/nvidia/version")
    node.run("mount --bind /tmp/driver /proc/driver")
    package = next(path for path in levels.debs() if "simulator" in path.name)
    node.put(package, "/var/tmp/simulator.deb")

    refused = node.run(
        "dpkg --install /var/tmp/simulator.deb", check=False, timeout_seconds=DPKG_SECONDS
    )

    assert refused.status != 0
    assert "this machine runs NVIDIA's driver" in refused.error_text
    assert node.run("dpkg-query -W -f '${db:Status-Abbrev}' gpuwarden").text.strip() == "ii"
    assert "/usr/bin/gpuwarden-sim" not in added_files(node)
