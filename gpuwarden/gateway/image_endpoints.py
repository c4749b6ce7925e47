# SPDX-License-Identifier: Apache-2.0
"""``/v1/images``: images that are sent once, to be asked about by reference."""

import time

from aiohttp.web import BaseRequest, Response

from gpuwarden.gateway.admission import examine_image
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.http import IDENTIFIER, json_response
from gpuwarden.gateway.images import REFERENCE
from gpuwarden.gateway.intake import IMAGE_GONE, Intake


class ImageEndpoints:
    """Takes images and forgets them; there is no way to get one back."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def receive(self, request: BaseRequest) -> Response:
        """Keep an image for a while."""
        store, dispatcher = self._intake.images, self._intake.dispatcher
        upload = examine_image(request, dispatcher.settings)
        self._intake.check_room()
        deposit = store.begin(upload.length or 0)
        try:
            body = await self._intake.upload(request, upload, deposit.room)
            if body.question is not None or body.reference is not None:
                param = "image" if body.question is None else "question"
                raise ApiError("invalid_request", "send the image alone", param=param)
            image, seconds = store.keep(deposit, body)
        finally:
            deposit.close()
        content = {
            "id": image.identifier,
            "object": "image",
            "url": f"{REFERENCE}{image.identifier}",
            "media_type": image.media_type,
            "bytes": image.length,
            "expires_at": int(time.time() + seconds),
        }
        return json_response(content, status=201)

    async def delete(self, request: BaseRequest) -> Response:
        """Forget an image now; its id is the right to say so."""
        identifier = request[IDENTIFIER]
        if not self._intake.images.remove(identifier):
            raise ApiError("image_not_found", IMAGE_GONE, param="id")
        return json_response({"id": identifier, "object": "image", "deleted": True})
