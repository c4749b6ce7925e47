# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.dataplane.served.bare PORT``: an image's bare steps, by one process.

The kernel copies it from the socket into memory that is there already, and it is added up where it
lies. Nothing is admitted, queued, handed over, cleared or supervised: no way of doing it takes
less.
"""

import json
import mmap
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.bench.dataplane.served.work import answer

LARGEST_BYTES = 64 << 20

_kept: list[mmap.mmap] = []


class Bare(BaseHTTPRequestHandler):
    """One connection, and memory of its own while it lasts."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Memory that an earlier connection has used, if there is any."""
        super().setup()
        self.memory = _kept.pop() if _kept else mmap.mmap(-1, LARGEST_BYTES)

    def finish(self) -> None:
        """Keep it for the next one."""
        super().finish()
        _kept.append(self.memory)

    def do_POST(self) -> None:
        """Receive, add up, answer. Raises ConnectionError where the body breaks off."""
        with memoryview(self.memory)[: int(self.headers["Content-Length"])] as view:
            if self.rfile.readinto(view) != len(view):
                raise ConnectionError("the body breaks off")
            content = json.dumps(answer(view)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: that would be work."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Bare).serve_forever()
