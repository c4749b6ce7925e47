# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.dataplane.served.floor PORT``: aiohttp alone, answering by itself."""

import sys

from aiohttp import web

from tests.bench.dataplane.served.work import answer


async def handle(request: web.BaseRequest) -> web.StreamResponse:
    """Answer in the server's own process."""
    return web.json_response(answer(await request.read()))


async def ready(app: web.Application) -> None:
    """Tell whoever started this."""
    print("ready", flush=True)


if __name__ == "__main__":
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", handle)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
