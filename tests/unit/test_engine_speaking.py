# SPDX-License-Identifier: Apache-2.0
"""From tokens to text: pieces as they can be told, and whose request a tokenizer's error is."""

from collections.abc import Sequence

import pytest

from gpuwarden.worker.engines.transformers.answering import Answering
from gpuwarden.worker.engines.transformers.speaking import Speaker

BROKEN = 99


class Letters:
    """Token n is the n-th letter; all of a call are decoded together."""

    def __init__(self) -> None:
        self.calls = 0

    def decode(self, several: Sequence[Sequence[int]]) -> list[str]:
        self.calls += 1
        if any(BROKEN in one for one in several):
            raise ValueError("no such token")
        return ["".join(chr(97 + token) for token in one) for one in several]


def answering(slot: int) -> Answering:
    return Answering(slot, 3, 100, frozenset(), (), False)


class Said:
    """A speaker, and what it told."""

    def __init__(self) -> None:
        self.letters = Letters()
        self.pieces: list[dict[int, str]] = []
        self.speaker = Speaker(self.letters.decode, self.pieces.append)

    def done(self) -> dict[int, object]:
        found: dict[int, object] = {}
        while len(found) < 2:
            found |= {one.slot: result for one, result in self.speaker.done(5.0)}
        self.speaker.close()
        return found


def test_a_steps_tokens_are_decoded_in_one_call_and_told_together() -> None:
    said, first, second = Said(), answering(0), answering(1)
    said.speaker.say([(first, 0, False), (second, 1, False)])
    said.speaker.say([(first, 2, True), (second, 3, True)])
    texts = {
        slot: result["text"] for slot, result in said.done().items() if isinstance(result, dict)
    }
    assert texts == {0: "ac", 1: "bd"}
    assert said.pieces == [{0: "a", 1: "b"}, {0: "c", 1: "d"}]
    assert said.letters.calls == 2


def test_two_tokens_of_one_request_keep_their_order() -> None:
    said, first, second = Said(), answering(0), answering(1)
    said.speaker.say([(first, 0, False), (second, 1, True), (first, 2, True)])
    texts = {
        slot: result["text"] for slot, result in said.done().items() if isinstance(result, dict)
    }
    assert texts == {0: "ac", 1: "b"}
    assert said.pieces == [{0: "ac", 1: "b"}]


@pytest.mark.parametrize("is_alone", [True, False])
def test_what_can_not_be_decoded_fails_its_request_alone(is_alone: bool) -> None:
    said, broken, honest = Said(), answering(0), answering(1)
    said.speaker.say(
        [(broken, BROKEN, True)] if is_alone else [(broken, BROKEN, True), (honest, 1, True)]
    )
    if is_alone:
        said.speaker.say([(honest, 1, True)])
    done = said.done()
    assert isinstance(done[0], ValueError)
    assert isinstance(done[1], dict)
    assert done[1]["text"] == "b"
