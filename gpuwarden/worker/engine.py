# SPDX-License-Identifier: Apache-2.0
"""The class that an integrator writes: one model behind four methods.

Each method says where it runs. CPU process: one of a few processes without a GPU, which work
while the GPU runs the batch before. GPU thread: the one thread of the worker that touches the
card. Both hold their own object of the class; nothing but ``preprocess``'s result goes between.
"""

import pickle
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

MAX_PIXELS = 64 << 20  # 8192 x 8192; the largest mammography detectors have 25 million


class RequestError(Exception):
    """One request cannot be answered; the text goes to its caller and into no log.

    ``param`` names what the caller should correct, where that can be said.
    """

    kind = "engine_error"

    def __init__(self, message: str = "", param: Optional[str] = None) -> None:
        super().__init__(message)
        self.param = param


class BadImageError(RequestError):
    """The image cannot be used; say what was found and what would be right."""

    kind = "bad_image"


class TooManyPixelsError(BadImageError):
    """The image says of itself that it has more pixels than are taken here."""

    kind = "too_many_pixels"


class BadRequestError(RequestError):
    """Question or parameters cannot be used; say what was found and what would be right."""

    kind = "bad_request"


class OptionsError(ValueError):
    """``[workers.options]`` can't be used; the text names each, what it is, what would be right."""


@dataclass(frozen=True)
class Context:
    """What the worker was told: its model, the free options, its card.

    ``options`` is the table ``[workers.options]`` of the configuration. ``gpu_index`` is the
    node's index of the card; inside the process the card is always CUDA's device 0. Images that say
    they have more than ``max_pixels`` pixels never reach ``preprocess``.
    """

    model: str
    options: Dict[str, Any] = field(default_factory=dict)
    number: int = 0
    gpu_index: Optional[int] = None
    gpu_uuid: str = ""
    max_batch: int = 1
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Image:
    """One image of a request, as it was sent."""

    media_type: str
    data: memoryview

    def __reduce__(self) -> Tuple[Any, ...]:
        return _rebuild_image, (self.media_type, pickle.PickleBuffer(self.data))


def _rebuild_image(media_type: str, data: Any) -> Image:
    return Image(media_type, memoryview(data))


@dataclass(frozen=True)
class Output:
    """A result that JSON is not made for: a segmentation mask, a picture, an embedding.

    ``data`` is bytes, a numpy array or anything else with a contiguous buffer; it must not change
    any more. ``answer`` is what JSON can hold and the caller gets beside it, up to 4 KiB.
    """

    media_type: str
    data: Any
    answer: Dict[str, Any] = field(default_factory=dict)


@dataclass  # not frozen: each field would cost a call
class Request:
    """One request as ``preprocess`` gets it.

    ``body`` is read-only and not a copy; it is valid until ``preprocess`` returns.
    A request can itself be the result of ``preprocess``: its body then travels along.

    A chat has ``messages`` (``{"role": ..., "content": [parts]}``, a part being ``{"type": "text",
    "text": ...}`` or ``{"type": "image", "image": n}``) and ``images``, which the parts number.
    ``question`` is then the newest text of the user, ``body`` the newest image, of no bytes where
    there is none.
    """

    question: Optional[str]
    media_type: str
    parameters: Dict[str, Any]
    body: memoryview
    messages: Tuple[Dict[str, Any], ...] = ()
    images: Tuple[Image, ...] = ()

    def __reduce__(self) -> Tuple[Any, ...]:
        head = (self.question, self.media_type, self.parameters)
        body = pickle.PickleBuffer(self.body)
        return _rebuild_request, (*head, body, self.messages, self.images)


def _rebuild_request(
    question: Optional[str],
    media_type: str,
    parameters: Dict[str, Any],
    body: Any,
    messages: Tuple[Dict[str, Any], ...],
    images: Tuple[Image, ...],
) -> Request:
    return Request(question, media_type, parameters, memoryview(body), messages, images)


class Audience:
    """Those who wait for the requests of the batch that runs; here nobody listens."""

    def hear(self, index: int, text: str) -> None:
        """A piece of the answer to item ``index`` is there."""

    def hear_all(self, pieces: Dict[int, str]) -> None:
        """Pieces of the answers to several items are there at once."""
        for index, text in pieces.items():
            self.hear(index, text)

    def waits(self, index: int) -> bool:
        """Whether the caller of item ``index`` is still there."""
        return True


class Engine:
    """Base of every model class. ``context`` is set before any method is called."""

    context: Context
    audience = Audience()

    simulated_vram_bytes = 2 * 1024**3  # what it holds on a simulated card: a small model
    simulated_load = 0.9  # fraction of a simulated card that a running batch uses

    # What the images and the texts of one batch may have together; None: no matter.
    batch_pixels: Optional[int] = None
    batch_tokens: Optional[int] = None
    # Whether a batch may have requests of any size and any parameters; else they are alike in both.
    batch_mixed = False
    # Whether predict() and postprocess() take a few milliseconds at most and mind no thread: then
    # they run on the loop's, at normal priority, and nobody has to be woken for them.
    quick = False

    def load(self, context: Context) -> None:
        """Load the model onto the card (GPU thread). Raise to say why it can't be loaded."""
        raise NotImplementedError(f"{type(self).__name__} has no load(context) method")

    def warm_up(self) -> None:
        """Run once after ``load``, before the first request (GPU thread). Optional."""

    def prepare(self) -> None:
        """Run once in each CPU process before its first request. Optional."""

    def preprocess(self, request: Request) -> Any:
        """Turn a request into what ``predict`` wants (CPU process); must be picklable.

        Large buffers (numpy arrays, bytes in a ``pickle.PickleBuffer``) go over without a pipe.
        Raises BadImageError or BadRequestError for what the caller should correct.
        """
        return request

    def predict(self, batch: List[Any]) -> List[Any]:
        """One result for each item, in order (GPU thread).

        An item that fails alone may be a RequestError in the list. When this raises for a batch
        of several, each item is tried again alone, so that one cannot fail its neighbours.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predict(batch) method")

    def tell(self, index: int, text: str) -> None:
        """Hand on a piece of the answer's text to item ``index`` (within ``predict``). Optional.

        A caller that streams gets it at once. Who was told anything is not tried again.
        """
        self.audience.hear(index, text)

    def tell_all(self, pieces: Dict[int, str]) -> None:
        """The same for several items at once, in one record for all of them. Optional."""
        self.audience.hear_all(pieces)

    def is_awaited(self, index: int) -> bool:
        """Whether anybody still waits for item ``index``: if not, ``predict`` may end it early."""
        return self.audience.waits(index)

    def postprocess(self, result: Any) -> Union[Dict[str, Any], Output]:
        """The answer as a JSON object, or an ``Output`` (GPU thread, keep it short)."""
        answer: Union[Dict[str, Any], Output] = result
        return answer

    def memory(self) -> Optional[Tuple[int, int]]:
        """Bytes of VRAM (reserved, allocated), or None where unknown (GPU thread)."""
        return None

    def memory_figures(self) -> Optional[Dict[str, int]]:
        """What the allocator says, every five seconds (GPU thread); any of the following.

        ``reserved_bytes``, ``allocated_bytes``, ``peak_bytes`` (allocated at most so far),
        ``inactive_split_bytes`` (free parts of blocks that are in use otherwise), ``limit_bytes``
        (what it may take), ``num_device_alloc``, ``num_alloc_retries``, ``num_ooms``. None leaves
        it to the runtime, which asks torch where that is in use.
        """
        return None

    def drop_caches(self) -> None:
        """Give back what is held for speed alone, between two batches or steps (GPU thread).

        Called when memory runs short. The runtime empties torch's own cache after it. Optional.
        """

    def canary(self) -> Optional[bool]:
        """Whether the card still answers: True after a tiny kernel on it has ended (GPU thread).

        Asked when no process of the worker stands in the card's list any more. Raise, or return
        False, where the context is gone: then the worker is started again. None leaves it to the
        runtime, which asks by torch where that is in use.
        """
        return None


class SlotEngine(Engine):
    """A model whose requests join and leave between its steps, ``max_batch`` of them at a time.

    In place of ``predict``: ``join``, ``step`` and ``leave``, all on the GPU thread. ``tell`` and
    ``is_awaited`` take a slot's number. Requests come as soon as they are prepared and there is a
    free slot; on a hot card fewer slots are used, and those that run finish.

    ``group`` requests that are prepared join together, at most. ``thermal_state`` is the card's,
    as its guard says (``normal`` where nobody says anything).
    """

    group = 1
    thermal_state = "normal"

    def join(self, slot: int, item: Any) -> None:
        """Take what ``preprocess`` made of a request into a free slot: its prefill.

        Whatever it raises fails this request alone.
        """
        raise NotImplementedError(f"{type(self).__name__} has no join(slot, item) method")

    def join_all(self, joiners: Sequence[Tuple[int, Any]]) -> None:
        """Take several (slot, item) in together. Optional: else each joins alone.

        Where it raises, none of them has joined, and each is tried by ``join`` alone.
        """
        raise NotImplementedError(f"{type(self).__name__} has no join_all(joiners) method")

    def may_join(self, items: Sequence[Any], beside: int) -> bool:
        """Whether these items join together before the next step. Optional.

        Called for each that would be one more, with the ones before it; the first one always joins.
        Keep it short: it is called on the loop's thread.

        :param beside: how many requests are in slots and wait for the next step meanwhile.
        """
        return True

    def step(self) -> Dict[int, Any]:
        """Go one step on with every slot that is taken; the results of those that are through.

        A result is what ``postprocess`` gets, or an exception: then that request fails alone. Its
        slot is left by itself. Where this raises, all that are in fail.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step() method")

    def leave(self, slot: int) -> None:
        """The slot is free from now on: its request is through, has failed, or nobody waits."""

    def park(self, slot: int, parked: bool) -> bool:
        """Leave a taken slot out of the steps until it is unparked; whether that can be done.

        On a card in its critical state all slots beyond the limit are parked, the newest first;
        they go on, the oldest first, as others leave and the card cools. Optional.
        """
        return False


@dataclass(frozen=True)
class Surroundings:
    """What a ``ParallelEngine`` is given of its worker, for as long as that runs.

    :ivar fail: the worker can't go on, and why: it ends, and systemd starts it again.
    :ivar is_on_card: whether the last scan of the card lists any process of this worker's control
        group; None where that isn't known.
    :ivar show: how far loading is, for ``systemctl status``; without anything of a request.
    :ivar tell_figures: what is to be shown of it, by the names of ``frames.FrameType.SERVER``.
    """

    fail: Callable[[str], None]
    is_on_card: Callable[[], Optional[bool]]
    show: Callable[[str], None]
    tell_figures: Callable[[Dict[str, float]], None]


class ParallelEngine(Engine):
    """A model whose requests run side by side, each a coroutine, ``max_batch`` of them at a time.

    In place of ``predict``: ``open``, ``answer`` and ``close``, all on the worker's event loop, so
    they must not hold it up. ``tell`` and ``is_awaited`` take the request's place. On a hot card
    fewer run, and those that run finish; ``thermal_state`` is the card's. A request whose caller
    has left is cancelled.
    """

    thermal_state = "normal"

    async def open(self, surroundings: Surroundings) -> None:
        """Run once after ``warm_up``; requests come when it has returned. Optional."""

    async def answer(self, place: int, item: Any) -> Any:
        """What ``postprocess`` gets, of what ``preprocess`` made; what it raises fails it alone."""
        raise NotImplementedError(f"{type(self).__name__} has no answer(place, item) method")

    def limited(self, limit: Optional[int]) -> None:
        """So many may run together from now on; None: ``max_batch``. They are held to it anyway."""

    async def close(self) -> None:
        """The worker ends. Optional."""
