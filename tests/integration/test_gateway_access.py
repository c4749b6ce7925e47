# SPDX-License-Identifier: Apache-2.0
"""Who gets in: programs on the node; elsewhere the API key or the proxy's word; no browser."""

import socket
from pathlib import Path

import psutil
import pytest
from aiohttp.test_utils import make_mocked_request

from gpuwarden.gateway import service
from gpuwarden.gateway.access import check_caller, digest_of, read_keys
from tests.integration.gateway_node import GatewayNode, gateway_node

KEY, NEXT_KEY = "k" * 16, "n" * 32


def other_address() -> str:
    """An address of this machine that is not loopback."""
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]
    assert found, "these tests need a network interface with an IPv4 address"
    return str(found[0])


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gpuwarden-api-key").write_text(f"{KEY}\n{NEXT_KEY}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))


async def status(node: GatewayNode, **headers: str) -> int:
    return (await node.get("/v1/models", **headers)).status


async def test_on_loopback_a_program_needs_no_key(key: None) -> None:
    async with gateway_node() as node:
        assert await status(node) == 200
        assert await status(node, Authorization="Bearer whatever") == 200
        assert await status(node, Host="localhost") == 200


async def test_every_loopback_address_may_be_called_by_its_number(key: None) -> None:
    async with gateway_node(address="127.0.0.2") as node:
        assert await status(node) == 200
        assert await status(node, Host="127.0.0.3") == 403
    async with gateway_node(address="::1") as node:
        for host in ("[::1]", "[0:0:0:0:0:0:0:1]:7860"):
            assert await status(node, Host=host) == 200
        assert await status(node, Host="[::2]") == 403


async def test_a_caller_who_has_left_is_not_taken_for_root(key: None) -> None:
    async with gateway_node() as node:
        gone = make_mocked_request("GET", "/v1/jobs", {"Host": "localhost"})
        gone.protocol.transport = None
        with pytest.raises(ConnectionResetError):
            check_caller(gone, node.service._routes.access)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:7860"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Host": "node.evil.example"},
        {"Host": "127.0.0.1.evil.example:7860"},
        {"Host": ""},
    ],
)
async def test_pages_and_foreign_names_are_refused_with_and_without_the_key(
    key: None, headers: dict[str, str]
) -> None:
    async with gateway_node() as node:
        assert await status(node, **headers) == 403
        assert await status(node, Authorization=f"Bearer {KEY}", **headers) == 403


async def test_elsewhere_nothing_is_served_without_a_key_set_up() -> None:
    async with gateway_node(address=other_address()) as node:
        for path in ("/v1/models", "/healthz", "/metrics", "/openapi.json"):
            reply = await node.get(path, Authorization=f"Bearer {KEY}")
            assert (reply.status, reply.error) == (403, "forbidden")


async def test_elsewhere_the_key_is_asked_for(key: None) -> None:
    async with gateway_node(address=other_address()) as node:
        refused = await node.get("/v1/models")
        assert (refused.status, refused.error) == (401, "authentication_required")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert await status(node, Authorization="Bearer wrong-wrong-wrong") == 401
        assert await status(node, Authorization=f"Basic {KEY}") == 401
        assert await status(node, Authorization=f"Bearer {KEY}") == 200
        assert await status(node, Authorization=f"bearer {NEXT_KEY}") == 200
        assert await status(node, Authorization=f"Bearer {KEY}", Host="elsewhere") == 403


async def test_what_a_proxy_passes_on_is_not_taken_for_a_local_program(key: None) -> None:
    async with gateway_node(host_names=("node7.example",)) as node:
        assert await status(node, Host="node7.example", X_Forwarded_For="10.1.1.1") == 401
        assert await status(node, Forwarded="for=10.1.1.1") == 401
        key_too = {"X_Forwarded_For": "10.1.1.1", "Authorization": f"Bearer {KEY}"}
        assert await status(node, **key_too) == 200


@pytest.mark.parametrize(
    "header", ["Via", "X_Forwarded_Host", "X_Forwarded_Proto", "X_Real_IP", "X_SSL_Client_Verify"]
)
async def test_any_sign_of_a_proxy_asks_for_the_key_on_loopback_too(key: None, header: str) -> None:
    async with gateway_node() as node:
        assert await status(node, **{header: "NONE"}) == 401
        assert await status(node, **{header: "NONE"}, Authorization=f"Bearer {KEY}") == 200


async def test_a_proxy_on_the_node_is_believed_if_it_is_configured(key: None) -> None:
    word = {"X_SSL_Client_Verify": "SUCCESS", "X_Forwarded_For": "10.1.1.1"}
    async with gateway_node(proxy_addresses=("127.0.0.1",)) as node:
        assert await status(node, **word) == 200
        assert await status(node, X_SSL_Client_Verify="SUCCESS, SUCCESS") == 401
    async with gateway_node() as node:
        assert await status(node, **word) == 401


async def test_a_socket_for_both_families_takes_ipv4_clients_for_what_they_are(key: None) -> None:
    async with gateway_node(address="::", dualstack=True, proxy_addresses=("127.0.0.1",)) as node:
        node.address = "127.0.0.1"
        assert await status(node) == 200
        word = {"X_SSL_Client_Verify": "SUCCESS", "X_Forwarded_For": "10.1.1.1"}
        assert await status(node, **word) == 200
        node.address = other_address()
        assert await status(node) == 401
        assert await status(node, Authorization=f"Bearer {KEY}") == 200


async def test_a_clients_certificate_counts_from_configured_proxies_alone(key: None) -> None:
    address = other_address()
    word = {"X_SSL_Client_Verify": "SUCCESS"}
    async with gateway_node(address=address, proxy_addresses=(f"{address}/32",)) as node:
        assert await status(node, **word) == 200
        assert await status(node, X_SSL_Client_Verify="FAILED:expired") == 401
        assert await status(node, X_SSL_Client_Verify="NONE") == 401
    async with gateway_node(address=address, proxy_addresses=("198.51.100.0/24",)) as node:
        assert await status(node, **word) == 401


def test_a_key_that_anybody_could_guess_is_not_used(tmp_path: Path) -> None:
    assert read_keys("") == read_keys(str(tmp_path)) == ()
    (tmp_path / "gpuwarden-api-key").write_text(f"short\n\n{KEY}\n")
    assert read_keys(str(tmp_path)) == (digest_of(KEY.encode()),)
    (tmp_path / "gpuwarden-api-key").write_text("\n")
    assert read_keys(str(tmp_path)) == ()


def test_the_service_listens_on_loopback_unless_told_otherwise() -> None:
    with service.bind_http(":0") as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
    unit = Path(__file__).parents[2] / "packaging" / "systemd" / "medgemma-gateway.socket"
    addresses = [line for line in unit.read_text().splitlines() if line.startswith("Listen")]
    assert addresses == ["ListenStream=127.0.0.1:7860"]
