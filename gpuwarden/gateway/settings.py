# SPDX-License-Identifier: Apache-2.0
"""What the front door takes from the configuration, with the limits that follow from it."""

from dataclasses import dataclass
from functools import cached_property

from gpuwarden.config import Configuration
from gpuwarden.gateway.batching import BatchRules
from gpuwarden.gateway.buffers import largest_class_bytes
from gpuwarden.gateway.work import Limits, Weight


@dataclass(frozen=True)
class GatewaySettings:
    """Limits of the front door; sizes in bytes, times in seconds."""

    queue_limit: int = 100
    queue_limit_bytes: int = 512 << 20
    body_limit_bytes: int = 128 << 20
    header_limit_bytes: int = 16384
    request_timeout_seconds: float = 30.0
    execution_timeout_seconds: float = 30.0
    pool_bytes: int = 512 << 20
    host_names: tuple[str, ...] = ()
    proxy_addresses: tuple[str, ...] = ()
    uploads_limit: int = 64
    linger_seconds: float = 0.0
    batch_pixels: int = 128 << 20
    batch_tokens: int = 32768
    results_bytes: int = 256 << 20
    connections_limit: int = 2000
    header_timeout_seconds: float = 20.0
    idle_timeout_seconds: float = 75.0
    reader_timeout_seconds: float = 30.0
    images_bytes: int = 256 << 20
    images_seconds: float = 600.0
    job_disk_limit_bytes: int = 20 << 30
    job_disk_free_share: float = 0.1
    job_keep_seconds: float = 86400.0
    grace_seconds: float = 10.0  # a worker's restart takes 1 s and the engine's load

    @cached_property
    def upload_limit_bytes(self) -> int:
        """The largest body that can ever be taken: the configured one, if the pool can hold it."""
        return min(self.body_limit_bytes, largest_class_bytes(self.pool_bytes))


def gateway_settings(configuration: Configuration) -> GatewaySettings:
    """The front door's part of the configuration."""
    gateway = configuration.gateway
    return GatewaySettings(
        queue_limit=gateway.queue_limit,
        queue_limit_bytes=gateway.queue_limit_bytes,
        body_limit_bytes=gateway.body_limit_bytes,
        header_limit_bytes=gateway.header_limit_bytes,
        request_timeout_seconds=gateway.request_timeout_seconds,
        execution_timeout_seconds=configuration.workers.execution_timeout_seconds,
        pool_bytes=gateway.pool_bytes,
        host_names=gateway.host_names,
        proxy_addresses=gateway.proxy_addresses,
        uploads_limit=gateway.uploads_limit,
        linger_seconds=gateway.linger_ms / 1000,
        batch_pixels=gateway.batch_pixels,
        batch_tokens=gateway.batch_tokens,
        results_bytes=gateway.results_bytes,
        connections_limit=gateway.connections_limit,
        header_timeout_seconds=gateway.header_timeout_seconds,
        idle_timeout_seconds=gateway.idle_timeout_seconds,
        reader_timeout_seconds=gateway.reader_timeout_seconds,
        images_bytes=gateway.images_bytes,
        images_seconds=gateway.images_seconds,
        job_disk_limit_bytes=configuration.jobs.disk_limit_bytes,
        job_disk_free_share=configuration.jobs.disk_free_share,
        job_keep_seconds=configuration.jobs.keep_seconds,
    )


def limits_of(settings: GatewaySettings) -> Limits:
    """The queue's bounds."""
    return Limits(
        settings.queue_limit,
        settings.queue_limit_bytes,
        settings.request_timeout_seconds,
        settings.execution_timeout_seconds,
        settings.grace_seconds,
    )


def batch_rules(settings: GatewaySettings) -> BatchRules:
    """How batches are formed."""
    return BatchRules(settings.linger_seconds, Weight(settings.batch_pixels, settings.batch_tokens))
