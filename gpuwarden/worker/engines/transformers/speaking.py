# SPDX-License-Identifier: Apache-2.0
"""From tokens to text, off the thread that steps: pieces to who streams, and whole answers."""

import queue
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from gpuwarden.worker.engines.transformers.answering import Answering

Tell = Callable[[Dict[int, str]], None]
Done = Tuple[Answering, Any]  # the result, or what went wrong
Spoken = List[Tuple[Answering, int, bool]]  # whose token, and whether it is the last one
Decode = Callable[[List[List[int]]], List[str]]

HALF = "\N{REPLACEMENT CHARACTER}"  # what half a character decodes to: it is told once it is whole


class Speaker:
    """One thread that decodes tokens as they come.

    :param decode: tokens' numbers to texts, without the special ones.
    :param tell: pieces by slot, for who streams.
    """

    def __init__(self, decode: Decode, tell: Tell) -> None:
        self._decode = decode
        self._tell = tell
        self._work: queue.SimpleQueue[Optional[Spoken]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._done: List[Done] = []
        self._came = threading.Condition(self._lock)
        self._texts: Dict[int, _Text] = {}
        self._thread = threading.Thread(target=self._run, name="speaker", daemon=True)
        self._thread.start()

    def say(self, spoken: Spoken) -> None:
        """What a step gave."""
        if spoken:
            self._work.put(spoken)

    def done(self, wait_seconds: float) -> List[Done]:
        """Answers that are complete; waits for one that long."""
        with self._came:
            if not self._done and wait_seconds:
                self._came.wait(wait_seconds)
            done, self._done = self._done, []
        return done

    def forget(self, one: Answering) -> None:
        """Nobody is told anything of it from now on."""
        with self._lock:
            one.gone = True
            self._texts.pop(id(one), None)
            self._done = [(other, result) for other, result in self._done if other is not one]

    def fail(self, several: List[Answering], error: Exception) -> None:
        """They end with an error."""
        with self._lock:
            for one in several:
                if not one.gone:
                    self._end(one, error)

    def close(self) -> None:
        """End the thread."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            spoken = self._work.get()
            if spoken is None:
                return
            with self._lock:
                self._speak(spoken)

    def _speak(self, spoken: Spoken) -> None:
        pieces: Dict[int, str] = {}
        while spoken:
            turn, spoken = _turn_of(spoken)
            self._take(turn, pieces)
        if pieces:
            self._tell(pieces)
        if self._done:
            self._came.notify_all()

    def _take(self, turn: Spoken, pieces: Dict[int, str]) -> None:
        """One token each, decoded together; where that fails, each by itself."""
        texts: List[Tuple[_Text, bool]] = []
        wanted: List[List[int]] = []
        for one, token, last in turn:
            if not one.gone:
                text = self._texts.setdefault(id(one), _Text(one))
                texts.append((text, last))
                wanted += text.adds(token, last)
        try:
            found = self._decode(wanted)
        except Exception as error:  # noqa: BLE001 - a tokenizer's: whose request fails is found out
            if len(texts) == 1:
                self._end(texts[0][0].one, error)
                return
            found = self._decoded_apart(texts, wanted)
        for place, (text, last) in enumerate(texts):
            if text.one.gone:
                continue
            slot = text.one.slot
            piece = text.reads(found[2 * place], found[2 * place + 1], last)
            if piece:
                pieces[slot] = pieces.get(slot, "") + piece
            if text.ended:
                self._end(text.one, text.result())

    def _decoded_apart(
        self, texts: List[Tuple["_Text", bool]], wanted: List[List[int]]
    ) -> List[str]:
        found: List[str] = []
        for place, (text, _) in enumerate(texts):
            try:
                found += self._decode(wanted[2 * place : 2 * place + 2])
            except Exception as error:  # noqa: BLE001 - a tokenizer's: this request fails alone
                self._end(text.one, error)
                found += ["", ""]
        return found

    def _end(self, one: Answering, result: Any) -> None:
        one.ended = one.gone = True
        self._texts.pop(id(one), None)
        self._done.append((one, result))


def _turn_of(spoken: Spoken) -> Tuple[Spoken, Spoken]:
    """The first token of each, and what is left."""
    first: Dict[int, Tuple[Answering, int, bool]] = {}
    rest: Spoken = []
    for entry in spoken:
        if first.setdefault(id(entry[0]), entry) is not entry:
            rest.append(entry)
    return list(first.values()), rest


class _Text:
    """The text of one answer, as it grows.

    What a token reads depends on those before it, so a few are decoded again with each new one.
    """

    def __init__(self, one: Answering) -> None:
        self.one = one
        self._tokens: List[int] = []
        self._context = 0  # the first token that is decoded again
        self._settled = 0  # the first token whose text isn't settled
        self._text = ""
        self._told = 0
        self._count = 0
        self._stopped = False
        self.ended = False

    def adds(self, token: int, last: bool) -> Tuple[List[int], List[int]]:
        """The next token; what is to be decoded for it: what is settled, and that with the rest."""
        self._count += 1
        if token in self.one.stops:
            self._stopped = last
        else:
            self._tokens.append(token)
        return self._tokens[self._context : self._settled], self._tokens[self._context :]

    def reads(self, known: str, text: str, last: bool) -> str:
        """What that reads; the piece of the text that can be told."""
        if len(text) > len(known) and (last or not text.endswith(HALF)):
            self._text += text[len(known) :]
            self._context, self._settled = self._settled, len(self._tokens)
        stops = self.one.stop_texts
        places = [place for place in map(self._text.find, stops) if place >= 0]
        if places:
            self._text, self._stopped = self._text[: min(places)], True
        self.ended = last or self._stopped
        end = len(self._text) - (0 if self.ended else held_back(self._text, stops))
        piece = self._text[self._told : end]
        self._told = max(self._told, end)
        return piece

    def result(self) -> Dict[str, Any]:
        """What the answer is made of."""
        return {
            "text": self._text,
            "finish_reason": "stop" if self._stopped else "length",
            "usage": {"prompt_tokens": self.one.prompt_tokens, "completion_tokens": self._count},
        }


def held_back(text: str, stops: Tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of a stop."""
    most = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), most, -1):
            if text.endswith(stop[:size]):
                most = size
                break
    return most
