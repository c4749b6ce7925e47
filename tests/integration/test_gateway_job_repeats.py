# SPDX-License-Identifier: Apache-2.0
"""Submissions of durable jobs that come again: the same job, or none; never another's answer."""

import asyncio
import base64
import hashlib

import pytest

from gpuwarden.gateway.jobs.service import JobPlace
from tests.integration.durable_jobs import submit
from tests.integration.gateway_node import DEADLINE_SECONDS, gateway_node

MIB = 1 << 20


async def test_a_caller_who_tries_again_under_the_same_key_gets_the_same_job(
    place: JobPlace,
) -> None:
    async with gateway_node(jobs=place) as node:
        first = await submit(node, b"image", **{"Idempotency-Key": "one"})
        again = await node.post(b"image", path="/v1/jobs", headers={"Idempotency-Key": "one"})
        assert (again.status, again.json["id"]) == (200, first)
        other = await node.post(b"longer", path="/v1/jobs", headers={"Idempotency-Key": "one"})
        assert (other.status, other.error) == (422, "idempotency_mismatch")
        replies = await asyncio.gather(
            *(
                node.post(b"y" * MIB, path="/v1/jobs", headers={"Idempotency-Key": "two"})
                for _ in range(4)
            )
        )
        assert len({reply.json["id"] for reply in replies}) == 1
        assert sorted(reply.status for reply in replies)[:2] == [200, 200]
        assert len(list((place.folder / "files").iterdir())) == 2


@pytest.mark.parametrize(
    ("body", "query", "headers"),
    [
        (b"other", "", {}),
        (b"image", "?question=other", {}),
        (b"image", "?question=", {}),
        (b"image", "", {"Content-Type": "image/png"}),
    ],
)
async def test_nobody_gets_another_images_or_questions_answer_by_its_key(
    place: JobPlace, body: bytes, query: str, headers: dict[str, str]
) -> None:
    key = {"Idempotency-Key": "accession-4711"}
    async with gateway_node(jobs=place) as node:
        await submit(node, b"image", **key)
    async with gateway_node(jobs=place) as node:  # it holds across a restart
        path = f"/v1/jobs{query}"
        media_type = headers.get("Content-Type", "application/octet-stream")
        for told in ({}, digest_header(body)):
            other = await node.post(body, path=path, media_type=media_type, headers=key | told)
            assert (other.status, other.error) == (422, "idempotency_mismatch")
        assert len(list((place.folder / "files").iterdir())) == 1


def digest_header(body: bytes) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return {"Content-Digest": f"sha-256=:{digest}:"}


async def test_an_image_that_was_changed_on_its_way_is_no_job(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        changed = await node.post(b"imagf", path="/v1/jobs", headers=digest_header(b"image"))
        assert (changed.status, changed.error) == (400, "invalid_request")
        assert changed.json["error"]["param"] == "Content-Digest"
        for header in ("sha-256=:AAAA:", "sha-256=nothing", "sha-256=", "sha-256=:\udcff:"):
            wrong = await node.post(b"image", path="/v1/jobs", headers={"Content-Digest": header})
            assert (wrong.status, wrong.json["error"]["param"]) == (400, "Content-Digest")
        assert list((place.folder / "files").iterdir()) == []
        other = {"Content-Digest": "sha-512=:AAAA:, md5=:AAAA:"}  # of these nothing is known here
        assert (await node.post(b"image", path="/v1/jobs", headers=other)).status == 202


async def test_an_image_that_was_sent_before_is_the_same_as_itself(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        sent = await node.post(b"image", path="/v1/images", media_type="image/png")
        headers = {"Idempotency-Key": "one", **digest_header(b"")}
        path = f"/v1/jobs?image={sent.json['url']}"
        first = await node.post(b"", path=path, media_type=None, headers=headers)
        again = await node.post(b"", path=path, media_type=None, headers=headers)
        raw = {"Idempotency-Key": "one", **digest_header(b"image")}
        alike = await node.post(b"image", path="/v1/jobs", media_type="image/png", headers=raw)
        assert (first.status, again.status, alike.status) == (202, 200, 200)
        assert first.json["id"] == again.json["id"] == alike.json["id"]


async def test_a_form_is_the_same_however_it_is_written(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        ids = []
        for boundary in ("one", "another-one"):
            form = (
                f'--{boundary}\r\nContent-Disposition: form-data; name="image"\r\n'
                f"Content-Type: image/png\r\n\r\nimage\r\n--{boundary}--\r\n"
            ).encode()
            kind = f"multipart/form-data; boundary={boundary}"
            headers = {"Idempotency-Key": "one", **digest_header(form)}
            reply = await node.post(form, path="/v1/jobs", media_type=kind, headers=headers)
            ids.append(reply.json["id"])
        assert ids[0] == ids[1]


async def test_a_known_key_is_answered_before_the_body_is_sent(place: JobPlace) -> None:
    async with gateway_node(jobs=place) as node:
        first = await submit(node, b"z" * MIB, **{"Idempotency-Key": "one"})
        told = digest_header(b"z" * MIB)["Content-Digest"].encode()
        reader, writer = await node.connect()
        writer.write(
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Idempotency-Key: one\r\nContent-Length: 1048576\r\n"
            b"Content-Digest: %s\r\n\r\n" % told
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_SECONDS)
        writer.close()
        assert b" 200 " in head.splitlines()[0]
        assert f"Location: /v1/jobs/{first}".encode() in head
