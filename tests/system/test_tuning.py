# SPDX-License-Identifier: Apache-2.0
"""A host tuned for real by day and by night, and as it was afterwards."""

import pytest

from tests.node.hardware import LOGGED_DISK_BUS
from tests.node.vm import Node
from tests.system.service import status, wait_for, wait_for_state
from tests.system.test_docs import blocks, run_block

CONFIG = "/etc/gpuwarden/conf.d/60-tuning.toml"
STAMPS = "/var/lib/systemd/timers/stamp-medgemma-tuning"
DISK = "/sys/block/nvme0n1/queue"
SETTINGS = {
    "huge pages": "/sys/kernel/mm/transparent_hugepage/enabled",
    "scheduler": f"{DISK}/scheduler",
    "queue depth": f"{DISK}/nr_requests",
    "time slice": "/sys/kernel/debug/sched/min_granularity_ns",
    "wake-up": "/sys/kernel/debug/sched/wakeup_granularity_ns",
    "swappiness": "/proc/sys/vm/swappiness",
    "dirty": "/proc/sys/vm/dirty_ratio",
    "dirty in the background": "/proc/sys/vm/dirty_background_ratio",
    "dirty for": "/proc/sys/vm/dirty_expire_centisecs",
}
# Not zswap, which the kernel of this virtual machine doesn't have.
BOTH = {
    "huge pages": "never",
    "scheduler": "mq-deadline",
    "swappiness": "10",
}
PROFILES = {
    "gpuwarden-day": BOTH
    | {
        "queue depth": "1024",
        "time slice": "1500000",
        "wake-up": "1000000",
        "dirty": "10",
        "dirty in the background": "3",
        "dirty for": "1000",
    },
    "gpuwarden-night": BOTH
    | {
        "queue depth": "256",
        "time slice": "10000000",
        "wake-up": "15000000",
        "dirty": "20",
        "dirty in the background": "10",
        "dirty for": "3000",
    },
}


def settings(node: Node) -> dict[str, str]:
    """What the kernel says now; of several choices the one in brackets."""
    lines = node.run(["tail", "-q", "-n1", *SETTINGS.values()]).text.splitlines()
    chosen = [line.partition("[")[2].partition("]")[0] or line for line in lines]
    return dict(zip(SETTINGS, chosen, strict=True))


def plug_in_nvme_disk(node: Node) -> None:
    image = node.folder / "nvme.raw"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    backend = {"driver": "file", "filename": str(image)}
    node.monitor.command("blockdev-add", **{"driver": "raw", "node-name": "nvme", "file": backend})
    node.monitor.command(
        "device_add", driver="nvme", drive="nvme", serial="nvme", bus=LOGGED_DISK_BUS
    )
    wait_for(node, f"[ -e {DISK}/scheduler ]", 30)


def configure(node: Node, text: str, *, good: bool = True) -> str:
    """Put a configuration in place and reload; what was printed."""
    node.put(f"[tuning]\n{text}\n".encode(), CONFIG)
    done = node.run("gpuwarden reload", check=False, timeout_seconds=180)
    assert (done.status == 0) == good, done.text + done.error_text
    return done.text + done.error_text


def by_the_clock(node: Node) -> str:
    hour = int(node.run("date +%H").text)
    return "gpuwarden-day" if 7 <= hour < 19 else "gpuwarden-night"


def in_force(node: Node) -> str:
    """What tuned says, and the bus within the second that the guard may take."""
    (profile,) = node.run("tuned-adm active", check=False).text.split(":")[1:]
    profile = profile.strip()
    wait_for(
        node,
        "busctl get-property org.gpuwarden1 /org/gpuwarden1 org.gpuwarden1.Manager Profile | "
        f"grep -qx 's \"{profile}\"'",
        15,
    )
    return profile


@pytest.mark.long("tests/integration/test_tuning.py")
def test_day_and_night_are_set_for_real_and_what_was_there_comes_back(node: Node) -> None:
    plug_in_nvme_disk(node)
    before = settings(node)
    enable, look, hours = blocks("tuning.md")

    run_block(node, enable)
    now = by_the_clock(node)
    (other,) = set(PROFILES) - {now}
    assert in_force(node) == now
    assert settings(node) == PROFILES[now]
    run_block(node, look)

    node.run(f"systemctl start medgemma-tuning@{other.split('-')[1]}", timeout_seconds=120)
    assert in_force(node) == other
    assert settings(node) == PROFILES[other]
    assert "succeeded" in node.run("tuned-adm verify").text

    # A time that was missed is made up: that of the other half of the day, which is over.
    timer = f"medgemma-tuning-{other.split('-')[1]}.timer"
    node.run(f"systemctl stop {timer} && touch -d '2 days ago' {STAMPS}-{other[10:]}.timer")
    node.run(f"systemctl start {timer}")
    wait_for(node, f"tuned-adm active | grep -q {now}", 60)
    run_block(node, hours)

    configure(node, "enabled = false")
    assert settings(node) == before
    wait_for(node, "! systemctl is-active -q tuned", 30)
    assert "0 timers" in node.run("systemctl list-timers --all 'medgemma*'").text
    assert status(node)["profile"] == ""


def test_a_wrong_profile_is_named_and_a_node_without_tuned_runs(node: Node) -> None:
    before = node.run("cat /proc/sys/vm/swappiness").text
    refused = configure(node, 'enabled = true\nday_profile = "gpuwarden-dya"', good=False)
    assert f"{CONFIG}:3: tuning.day_profile" in refused
    assert "did you mean gpuwarden-day?" in refused
    assert node.run("gpuwarden config check", check=False).status == 1

    node.put(b'[tuning]\nenabled = true\nday_profile = "x"\nnight_profile = "x"\n', CONFIG)
    node.run("systemctl restart medgemma-guard")
    wait_for_state(node, "degraded")
    wait_for(
        node, "gpuwarden status | grep -q 'is \"x\", which is no profile that tuned knows'", 60
    )

    node.run(
        "mv /usr/sbin/tuned /lib/systemd/system/tuned.service /root && systemctl daemon-reload"
    )
    configure(node, "enabled = true")
    wait_for_state(node, "running")
    assert status(node)["tuning"]["untuned"] == "tuned is not installed (apt install tuned)"
    assert node.run("cat /proc/sys/vm/swappiness").text == before
