# SPDX-License-Identifier: Apache-2.0
import asyncio
import io
from pathlib import Path
from typing import Any

import numpy
import pydicom
from pydicom.data import get_testdata_file

from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.worker_peer import Gate, Node, sha256


async def ready_workers(gateway: GatewayNode, count: int) -> None:
    async with asyncio.timeout(30):
        while len(gateway.ready_links()) < count:  # noqa: ASYNC110 - real processes start
            await asyncio.sleep(0.02)


def ct_image() -> bytes:
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    return Path(path).read_bytes()


async def test_a_real_image_goes_through_the_front_door_to_a_real_worker(node: Node) -> None:
    pixels = pydicom.dcmread(io.BytesIO(ct_image())).pixel_array
    async with gateway_node() as gateway:
        path = str(gateway.dispatch_path)
        async with node.worker(engine="imagestats", dispatch_socket=path) as worker:
            await ready_workers(gateway, 1)
            reply = await gateway.post(ct_image(), media_type="application/dicom")
            assert reply.status == 200
            answer = reply.json["answer"]
            assert (answer["min"], answer["max"]) == (pixels.min(), pixels.max())
            assert answer["percentiles"]["50"] == numpy.percentile(pixels, 50)
            refused = await gateway.post(b"no image", media_type="application/dicom")
            assert (refused.status // 100, refused.error) == (4, "bad_image")
            assert "no image" not in worker.log()


async def test_images_of_every_size_arrive_whole_again_and_again(node: Node) -> None:
    random = numpy.random.default_rng(1)
    async with gateway_node() as gateway:
        path = str(gateway.dispatch_path)
        async with node.worker(dispatch_socket=path, preprocess_processes=2):
            await ready_workers(gateway, 1)
            bodies = [random.bytes(size) for size in (1, 65_536, 65_537, 3_000_000) * 4]
            replies = await asyncio.gather(*(gateway.post(body) for body in bodies))
            digests = [reply.json["answer"]["body_sha256"] for reply in replies]
            assert digests == [sha256(body) for body in bodies]


async def test_a_killed_worker_costs_no_request(node: Node, other_node: Node) -> None:
    path = node.folder / "predicting"
    async with gateway_node() as gateway:
        settings: dict[str, Any] = {
            "dispatch_socket": str(gateway.dispatch_path),
            "engine": "model_classes:Announcing",
            "options": {"announce": str(path), "hold": str(node.folder / "hold")},
        }
        announced, hold = Gate(node.folder, "predicting"), Gate(node.folder, "hold")
        async with node.worker(**settings) as first:
            await ready_workers(gateway, 1)
            posted = asyncio.create_task(gateway.post(b"image"))
            await announced.reached()
            async with other_node.worker(number=1, **settings):
                await ready_workers(gateway, 2)
                first.process.kill()
                await announced.reached()  # by the other one
                hold.open()
                reply = await posted
                assert reply.status == 200
                assert reply.json["answer"]["sha256"] == sha256(b"image")
