# SPDX-License-Identifier: Apache-2.0
"""The configuration's sections and keys, with their defaults, units, bounds and reasons.

Instances come from :func:`gpuwarden.config.loader.load_configuration`; ``Configuration()`` is the
defaults.
"""

from typing import Any, Literal

from gpuwarden.config.clients import ClientsSettings
from gpuwarden.config.health import HealthSettings
from gpuwarden.config.kinds import (
    GIB,
    KIB,
    MIB,
    TIB,
    AbsolutePath,
    AbsolutePaths,
    Bytes,
    CpuList,
    Engine,
    HostNames,
    ModelName,
    Networks,
    Option,
    Priority,
)
from gpuwarden.config.scan import ScanSettings
from gpuwarden.config.settings import Section, setting
from gpuwarden.config.thermal import ThermalSettings
from gpuwarden.config.tuning import TuningSettings
from gpuwarden.priority import ALLOWED as ALLOWED_PRIORITIES


def _model_follows_engine(data: dict[str, Any]) -> str:
    return str(data["engine"])


def _network_follows_engine(data: dict[str, Any]) -> str:
    return "private" if data["engine"] == "command" else "none"


class WorkersSettings(Section):
    """The model processes: how many, what they run, what each may use."""

    workers_per_gpu: int = setting(
        1,
        description="Worker processes for each card. Worker N serves card N // workers_per_gpu.",
        why="one model fills one card; more only where models are small and the memory holds them",
        unit="workers",
        at_least=1,
        at_most=16,
    )
    python: AbsolutePath = setting(
        "/usr/bin/python3",
        description="Interpreter that the workers run on: your model's own, Python 3.9 or newer.",
        why="the distribution's, which the built-in engines need; a real model wants its own "
        "environment, for example /opt/medgemma/bin/python",
        allowed='the absolute path of a python, as a string: "/opt/medgemma/bin/python"',
    )
    engine: Engine = setting(
        "imagestats",
        description="What answers the requests. imagestats measures the image, echo returns the "
        "request, transformers runs a model from a local folder, command starts a server and asks "
        "that, and package.module:ClassName is a class of your own.",
        why="needs no model and no GPU library, so a fresh install answers",
        allowed='"echo", "imagestats", "transformers", "command" or "package.module:ClassName"',
    )
    engine_path: AbsolutePaths = setting(
        (),
        description="Directories searched for the engine's module before the interpreter's own.",
        why="an engine that is installed in its environment needs none",
        allowed='a list of absolute paths: ["/opt/medgemma/engines"]',
    )
    model: ModelName = setting(
        _model_follows_engine,
        description="The model's name as clients see it.",
        why="the same as engine, until you give it a better one",
        allowed='1 to 128 printable ASCII characters: "medgemma-4b"',
    )
    network: Literal["none", "private", "host"] = setting(
        _network_follows_engine,
        description="What a worker reaches beside the front door: private is a loopback of its "
        "own that nobody else on this host sees, host is this host's loopback.",
        why="a server behind the engine command needs one, nothing else does",
        allowed='"none", "private" or "host"',
    )
    memory_max_bytes: Bytes = setting(
        16 * GIB,
        description="Main memory (RAM) of one worker with its children. The kernel kills a worker "
        "that needs more, and it is started again.",
        why="loads a 4-billion-parameter model in bfloat16 (8.6 GB) with room for images",
        unit="bytes",
        at_least=256 * MIB,
        at_most=16 * TIB,
    )
    tasks_max: int = setting(
        512,
        description="Processes and threads of one worker, together.",
        why="torch starts about one thread a CPU in each of its pools; a runaway stays harmless",
        unit="tasks",
        at_least=64,
        at_most=65536,
    )
    cpus_per_worker: int = setting(
        0,
        description="CPUs of one worker, taken from its card's NUMA node. 0 is a fair share.",
        why="what the node has, divided by the workers on it, leaves no CPU idle",
        unit="CPUs",
        at_least=0,
        at_most=1024,
    )
    inference_priority: Priority = setting(
        "fifo:10",
        description="Scheduling of the one thread of each worker that drives its card, where the "
        "worker has two CPUs of its own or more: fifo:N is the kernel's real-time policy with "
        "priority N. Everything else of the worker keeps the normal policy.",
        why="above everything normal, so that a busy host can't keep the card waiting, and below "
        "the kernel's own threads (interrupts run at 50), which the card itself depends on",
        allowed=ALLOWED_PRIORITIES,
    )
    preprocess_processes: int = setting(
        2,
        description="Processes that decode images while the card computes.",
        why="one decodes while the other hands over; the card is the bottleneck",
        unit="processes",
        at_least=1,
        at_most=32,
    )
    preprocess_memory_bytes: Bytes = setting(
        4 * GIB,
        description="Memory that one of these processes may take for an image, beyond what it "
        "holds when it is ready. An image that needs more is refused with 422.",
        why="five times what the largest allowed image takes in colour and 32 bits a sample",
        unit="bytes",
        at_least=64 * MIB,
        at_most=TIB,
    )
    max_pixels: int = setting(
        64 * MIB,
        description="Pixels of one image: columns times rows, times the frames of a DICOM object. "
        "What says that it has more is refused with 422 before it is decoded.",
        why="8192 x 8192; the largest mammography detectors have 25 million",
        unit="pixels",
        at_least=1,
        at_most=TIB,
    )
    max_batch: int = setting(
        4,
        description="Requests computed together, at most.",
        why="most of the gain of batching, at a delay that a waiting radiologist does not notice",
        unit="requests",
        at_least=1,
        at_most=256,
    )
    drain_seconds: float = setting(
        30.0,
        description="Time to finish accepted requests when a worker is stopped.",
        why="as long as one request may take; at most 35, because systemd kills after 40",
        unit="seconds",
        at_least=0,
        at_most=35,  # TimeoutStopSec=40 of the worker's unit, less the 5 s that its children get
    )
    load_timeout_seconds: float = setting(
        600.0,
        description="Time to load the model, until the first answer is possible.",
        why="a large model from a slow disk takes minutes; longer means that it hangs",
        unit="seconds",
        at_least=1,
        at_most=86400,
    )
    execution_timeout_seconds: float = setting(
        30.0,
        description="Time for one batch, or for one answer in a slot. A worker that takes longer "
        "is stuck and replaced; one with slots only if that slot is not free 5 s later.",
        why="as long as a caller waits; a kernel that hangs is found in half a minute",
        unit="seconds",
        at_least=0.1,
        at_most=3600,
    )
    options: dict[str, Option] = setting(
        dict,
        description="A free table, handed to the engine as it is.",
        why="the built-in engines need none",
        allowed="strings, finite numbers, booleans, and lists of these",
    )


class GatewaySettings(ClientsSettings):
    """The front door. Its address is systemd's: systemctl edit medgemma-gateway.socket."""

    queue_limit: int = setting(
        100,
        description="Requests that may wait. One more is refused with 429 and Retry-After.",
        why="more than a minute's wait helps nobody; a refusal at once lets the caller decide",
        unit="requests",
        at_least=1,
        at_most=100000,
    )
    queue_limit_bytes: Bytes = setting(
        512 * MIB,
        description="Bytes of the requests that may wait, together.",
        why="four of the largest requests, or a hundred of 5 MB",
        unit="bytes",
        at_least=MIB,
        at_most=TIB,
    )
    body_limit_bytes: Bytes = setting(
        128 * MIB,
        description="Bytes of one request. A larger one is refused with 413 before it is read.",
        why="an uncompressed mammogram, or 200 CT slices in one file, fits",
        unit="bytes",
        at_least=KIB,
        at_most=4 * GIB,
    )
    header_limit_bytes: Bytes = setting(
        16 * KIB,
        description="Bytes of one request's HTTP headers. More is refused with 431.",
        why="twice the 8 KiB that web servers commonly take",
        unit="bytes",
        at_least=KIB,
        at_most=MIB,
    )
    request_timeout_seconds: float = setting(
        30.0,
        description="Time from a request's arrival to its answer, waiting included. Then 504.",
        why="a radiologist has gone on by then",
        unit="seconds",
        at_least=0.1,
        at_most=3600,
    )
    pool_bytes: Bytes = setting(
        512 * MIB,
        description="Memory for request bodies, in use and kept for reuse, together.",
        why="as much as may wait; it is the gateway's share of the node's memory",
        unit="bytes",
        at_least=MIB,
        at_most=TIB,
    )
    results_bytes: Bytes = setting(
        256 * MIB,
        description="Memory for results over 64 KiB until their callers have them, and the most "
        "that one may have. It is taken beside pool_bytes.",
        why="masks of two large series at a time; images that wait never keep finished work here",
        unit="bytes",
        at_least=MIB,
        at_most=TIB,
    )
    host_names: HostNames = setting(
        (),
        description="Names of this node that a request's Host header may have, beside loopback's "
        "and the address itself.",
        why="on loopback nothing else is asked for; a name that isn't ours is a browser led astray",
        allowed='a list of names without port: ["node7.radiology.example"]',
    )
    proxy_addresses: Networks = setting(
        (),
        description="Proxies whose header X-SSL-Client-Verify: SUCCESS counts in place of the API "
        "key. From all others it is ignored.",
        why="who is believed can let anybody in",
        allowed='a list of addresses or networks: ["10.1.2.3", "10.2.0.0/24"]',
    )
    uploads_limit: int = setting(
        64,
        description="Bodies that may be received at the same time. One more is refused with 429.",
        why="more clients than a node has; slow ones can't use up the pool or the descriptors",
        unit="uploads",
        at_least=1,
        at_most=10000,
    )
    linger_ms: int = setting(
        0,
        description="Time that the oldest request of an incomplete batch may wait for company, "
        "where the workers take batches ([workers] max_batch) and company is likely.",
        why="what is there goes out at once: at low load half a second of waiting is half a second "
        "lost, and under load batches fill by themselves; 500 is the window of fixed batchers",
        unit="ms",
        at_least=0,
        at_most=10000,
    )
    batch_pixels: int = setting(
        128 * MIB,
        description="Pixels of the images of one batch, together; where an image doesn't say its "
        "size (all but PNG and JPEG), its bytes. One larger request runs alone.",
        why="four uncompressed images of 4096 x 4096 and 16 bits, 32 MB each",
        unit="pixels",
        at_least=1,
        at_most=TIB,
    )
    batch_tokens: int = setting(
        32768,
        description="Tokens of the texts of one batch, together, four bytes counting as one.",
        why="four questions of 8192 tokens; the longest text sets the pace of its batch",
        unit="tokens",
        at_least=1,
        at_most=TIB,
    )
    images_bytes: Bytes = setting(
        256 * MIB,
        description="Memory for images that were sent once by POST /v1/images, out of pool_bytes.",
        why="half of the pool: the other half stays for the requests themselves",
        unit="bytes",
        at_least=0,
        at_most=TIB,
    )
    images_seconds: float = setting(
        600.0,
        description="Time after which an image sent by POST /v1/images is gone, from its last use.",
        why="long enough for a reading with several questions, short for patients' data",
        unit="seconds",
        at_least=1,
        at_most=86400,
    )


class JobsSettings(Section):
    """Durable jobs: requests that wait on disk, encrypted, until there is time for them."""

    disk_limit_bytes: Bytes = setting(
        20 * GIB,
        description="Bytes of stored images and results, together. More is refused with 507.",
        why="2,500 CT series of 8 MB, or a night's work of mammograms",
        unit="bytes",
        at_least=MIB,
        at_most=64 * TIB,
    )
    disk_free_share: float = setting(
        0.1,
        description="Share of the file system that jobs leave free, whoever uses the rest.",
        why="a full disk stops more than jobs: the PACS, the journal",
        unit="share",
        at_least=0,
        at_most=0.9,
    )
    keep_seconds: float = setting(
        86400.0,
        description="Time that a finished job's result is kept. Then its key is destroyed.",
        why="a day to fetch what the night has computed; a patient's data is kept no longer",
        unit="seconds",
        at_least=1,
        at_most=31536000,
    )


class PlacementSettings(Section):
    """Which CPUs and which memory the workers get."""

    housekeeping_cpus: CpuList = setting(
        "",
        description="CPUs kept free of workers, for the system, the PACS and our own daemons. "
        "Empty lets us choose.",
        why="the first CPU and its siblings where there is a second core: interrupts land there",
        allowed='a kernel CPU list as a string, like "0-3,8"',
    )
    memory_policy: Literal["preferred", "bind", "none"] = setting(
        "preferred",
        description="Where a worker's memory lies: preferred takes the card's NUMA node first, "
        "bind takes nothing else, none leaves it to the kernel.",
        why="near where possible; bind kills a worker while other nodes have memory left",
        allowed='"preferred", "bind" or "none"',
    )
    housekeeping_exclusive: bool = setting(
        False,
        description="Keep everything else of this host on the housekeeping CPUs, the PACS too: "
        "system.slice, user.slice, machine.slice and init.scope get AllowedCPUs=.",
        why="nobody wants the host's other programs moved by an installation; with true, name "
        "housekeeping_cpus as well, enough of them for all of it",
        allowed="true or false",
    )


class LogSettings(Section):
    """What goes to the journal. Images, questions and answers never do."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        description="The least important messages that are logged.",
        why="every change of state, nothing for each request",
        allowed='"debug", "info", "warning" or "error"',
    )


class Configuration(Section):
    """The whole configuration, every default filled in."""

    workers: WorkersSettings = WorkersSettings()
    gateway: GatewaySettings = GatewaySettings()
    jobs: JobsSettings = JobsSettings()
    placement: PlacementSettings = PlacementSettings()
    thermal: ThermalSettings = ThermalSettings()
    health: HealthSettings = HealthSettings()
    scan: ScanSettings = ScanSettings()
    tuning: TuningSettings = TuningSettings()
    log: LogSettings = LogSettings()
