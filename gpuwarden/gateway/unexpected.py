# SPDX-License-Identifier: Apache-2.0
"""What fails outside of every handler: said without its text, which may quote a request."""

import asyncio
import logging
from typing import Any

from gpuwarden.gateway.http import where

log = logging.getLogger(__name__)

TEXTS = {"message", "exception", "source_traceback"}  # quote values; what else is there is named


def tell_unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The loop's exception handler: asyncio's own writes exceptions and arguments as they are."""
    parts = ", ".join(sorted(context.keys() - TEXTS))
    log.error("failed outside of every request (%s): %s", parts, where(context.get("exception")))
