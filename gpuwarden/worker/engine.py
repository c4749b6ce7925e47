"""The class that an integrator writes: one model behind four methods.

Each method says where it runs. CPU process: one of a few processes without a GPU, which work
while the GPU runs the batch before. GPU thread: the one thread of the worker that touches the
card. Both hold their own object of the class; nothing but ``preprocess``'s result goes between.
"""

import pickle
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple


class RequestError(Exception):
    """One request cannot be answered; the text goes to its caller and into no log."""

    kind = "engine_error"


class BadImageError(RequestError):
    """The image cannot be used; say what was found and what would be right."""

    kind = "bad_image"


class BadRequestError(RequestError):
    """Question or parameters cannot be used; say what was found and what would be right."""

    kind = "bad_request"


@dataclass(frozen=True)
class Context:
    """What the worker was told: its model, the free options, its card.

    ``options`` is the table ``[workers.options]`` of the configuration. ``gpu_index`` is the
    node's index of the card; inside the process the card is always CUDA's device 0.
    """

    model: str
    options: Dict[str, Any] = field(default_factory=dict)
    number: int = 0
    gpu_index: Optional[int] = None
    gpu_uuid: str = ""
    max_batch: int = 1


@dataclass(frozen=True)
class Request:
    """One request as ``preprocess`` gets it.

    ``body`` is read-only and not a copy; it is valid until ``preprocess`` returns.
    A request can itself be the result of ``preprocess``: its body then travels along.
    """

    question: Optional[str]
    media_type: str
    parameters: Dict[str, Any]
    body: memoryview

    def __reduce__(self) -> Tuple[Any, ...]:
        body = pickle.PickleBuffer(self.body)
        return _rebuild_request, (self.question, self.media_type, self.parameters, body)


def _rebuild_request(
    question: Optional[str], media_type: str, parameters: Dict[str, Any], body: Any
) -> Request:
    return Request(question, media_type, parameters, memoryview(body))


class Engine:
    """Base of every model class. ``context`` is set before any method is called."""

    context: Context

    simulated_vram_bytes = 2 * 1024**3  # what it holds on a simulated card: a small model
    simulated_load = 0.9  # fraction of a simulated card that a running batch uses

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

    def postprocess(self, result: Any) -> Dict[str, Any]:
        """The answer as a JSON object (GPU thread, keep it short)."""
        answer: Dict[str, Any] = result
        return answer

    def memory(self) -> Optional[Tuple[int, int]]:
        """Bytes of VRAM (reserved, allocated), or None where unknown (GPU thread)."""
        return None

    def canary(self) -> Optional[bool]:
        """Whether the card still answers: True after a tiny kernel on it has ended (GPU thread).

        Asked when no process of the worker stands in the card's list any more. Raise, or return
        False, where the context is gone: then the worker is started again. None leaves it to the
        runtime, which asks by torch where that is in use.
        """
        return None
