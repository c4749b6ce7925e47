# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.engine.front_door PORT FOLDER``: the gateway, with room for such images.

Its sockets and states are in the folder; workers are this user's processes.
"""

import asyncio
import sys
from pathlib import Path

from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.gateway.peers import same_user
from gpuwarden.gateway.service import Sockets, bind_dispatch, bind_http, serve
from gpuwarden.gateway.settings import GatewaySettings
from gpuwarden.systemd.notify import Notifier
from gpuwarden.worker.pauses import settle_memory
from tests.integration.gateway_node import job_place

GIB = 1 << 30
SETTINGS = GatewaySettings(
    queue_limit=200,
    queue_limit_bytes=8 * GIB,
    body_limit_bytes=GIB // 4,
    request_timeout_seconds=120.0,
    execution_timeout_seconds=120.0,
    pool_bytes=16 * GIB,
    images_bytes=8 * GIB,  # 64 callers with 32 MiB each, and those that died with theirs
    images_seconds=60.0,
    grace_seconds=300.0,
)


def main(port: str, place: str) -> None:
    """Serve until SIGTERM."""
    folder = Path(place)
    sockets = Sockets(
        [bind_http(f"127.0.0.1:{port}")], bind_dispatch(folder / "dispatch.sock"), same_user
    )
    writer = SnapshotWriter(folder / "state.json", "gateway")
    settle_memory()  # as the service's own main does
    asyncio.run(
        serve(
            SETTINGS,
            sockets,
            writer,
            Notifier(),
            lambda card: folder / "thermal" / f"{card}.json",
            job_place(folder / "jobs"),
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
