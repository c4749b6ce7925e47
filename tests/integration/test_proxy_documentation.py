# SPDX-License-Identifier: Apache-2.0
"""The proxies of docs/proxy.md, before a real front door, with real certificates."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.integration.certificates import Authority
from tests.integration.gateway_node import GatewayNode, gateway_node

DOCUMENT = (Path(__file__).parents[2] / "docs" / "proxy.md").read_text(encoding="utf-8")
NAME = "xray.hospital.example"
KEY = "k" * 16
START_SECONDS = 30.0


@dataclass
class Place:
    """Where a proxy runs.

    :ivar folder: with its configuration, and the certificates under their documented names.
    """

    folder: Path
    authority: Authority
    gateway_port: int
    port: int


def documented(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return str(text)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def placed(text: str, place: Place, folder: str) -> str:
    """The documented file, for this gateway and these files instead of ``folder``'s."""
    assert text.count("127.0.0.1:7860") == 1
    text = text.replace("127.0.0.1:7860", f"127.0.0.1:{place.gateway_port}")
    return text.replace(folder, f"{place.folder}/").replace("8443", str(place.port))


def haproxy(place: Place) -> list[list[str]]:
    """Its check and its start."""
    file = place.folder / "haproxy.cfg"
    text = placed(documented("haproxy"), place, "/etc/haproxy/")
    # No system's log here: nobody hears what goes to that port. The rest is as it is written.
    file.write_text(text.replace("log /dev/log ", "log 127.0.0.1:9 "))
    return [["haproxy", "-c", "-f", str(file)], ["haproxy", "-db", "-f", str(file)]]


def nginx(place: Place) -> list[list[str]]:
    file = place.folder / "nginx.conf"
    text = placed(documented("nginx"), place, "/etc/nginx/").replace(
        f"listen {place.port}", f"listen 127.0.0.1:{place.port}"
    )
    paths = "".join(
        f"{kind}_temp_path {place.folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(
        f"daemon off;\npid {place.folder}/pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\n{paths}{text}}}\n"
    )
    check = ["nginx", "-e", "stderr", "-c", str(file)]
    return [[*check, "-t"], check]


@asynccontextmanager
async def proxy(
    commands: Callable[[Place], list[list[str]]], node: GatewayNode, folder: Path
) -> AsyncIterator[Place]:
    """The proxy, checked by itself and then started before ``node``."""
    authority = Authority("clients")
    authority.save(folder, NAME)
    place = Place(folder, authority, node.port, free_port())
    check, start = commands(place)
    checked = await asyncio.create_subprocess_exec(*check, stderr=asyncio.subprocess.PIPE)
    _, words = await checked.communicate()
    assert checked.returncode == 0, words.decode()
    assert "WARN" not in words.decode().upper(), words.decode()
    process = await asyncio.create_subprocess_exec(*start)
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await accepts(place.port):  # noqa: ASYNC110 - nobody tells of its port
                await asyncio.sleep(0.02)
        yield place
    finally:
        process.terminate()
        await process.wait()


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def status(place: Place, path: str, *, certificate: bool, **headers: str) -> int:
    """What a client elsewhere gets; it knows the node by its name."""
    trust = ssl.create_default_context(cafile=str(place.folder / "clients-ca.pem"))
    if certificate:
        trust.load_cert_chain(place.folder / "client.pem")
    connector = aiohttp.TCPConnector(ssl=trust, resolver=Loopback())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(
            f"https://{NAME}:{place.port}{path}",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        ) as answer,
    ):
        return answer.status


class Loopback(aiohttp.abc.AbstractResolver):
    """Every name leads to this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        return [
            aiohttp.abc.ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("commands", [haproxy, nginx], ids=["haproxy", "nginx"])
async def test_a_client_with_a_certificate_gets_in_and_others_need_the_key(
    commands: Callable[[Place], list[list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "gpuwarden-api-key").write_text(KEY)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    async with gateway_node(host_names=(NAME,), proxy_addresses=("127.0.0.1",)) as node:
        await node.worker()
        async with proxy(commands, node, tmp_path) as place:
            assert await status(place, "/v1/models", certificate=True) == 200
            assert await status(place, "/v1/models", certificate=False) == 401
            told = {"X_SSL_Client_Verify": "SUCCESS"}  # by the client itself
            assert await status(place, "/v1/models", certificate=False, **told) == 401
            with_key = {"Authorization": f"Bearer {KEY}"}
            assert await status(place, "/v1/models", certificate=False, **with_key) == 200
            assert await status(place, "/metrics", certificate=True) == 404
