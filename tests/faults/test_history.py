"""The checker that the fault tests go by does find what can go wrong."""

from __future__ import annotations

import pytest

from deepseek_grpc.errors import StreamInterruptedError
from deepseek_grpc.types import Completion, Finished, Meta, Started, TextDelta, Usage
from tests.faults.history import History, Reference, problems

PIECES = ("a", "b", "c", "b", "d")
REFERENCE = Reference(PIECES, "abcbd", "stop")
ANSWER = Completion("abcbd", "stop", Usage(), Meta())


def said(*pieces):
    return [TextDelta(piece) for piece in pieces]


WHOLE = [Started(), *said(*PIECES), Finished("stop"), ANSWER]


def check(seen, *, streamed=True):
    history = History()
    for what in seen:
        history.saw(7, what)
    return problems(history, {7: REFERENCE}, frozenset({7} if streamed else ()))


def test_nothing_is_wrong_with_a_whole_turn():
    assert check(WHOLE) == []
    assert check([ANSWER], streamed=False) == []


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        ([], "ended 0 times"),
        (WHOLE[:-1], "ended 0 times"),
        ([*WHOLE, ANSWER], "ended 2 times"),
        ([*WHOLE, StreamInterruptedError("cut")], "ended 2 times"),
        ([*WHOLE, TextDelta("e")], "went on after its end"),
        (WHOLE[1:], "0 times Started"),
        ([Started(), *WHOLE], "2 times Started"),
        ([*WHOLE[:-2], ANSWER], "0 times Finished"),
        ([*WHOLE[:-1], Finished("stop"), ANSWER], "2 times Finished"),
        ([Started(), Finished("stop"), *said(*PIECES), ANSWER], "Finished isn't its last event"),
        ([Started(), *said(*PIECES), Finished("length"), ANSWER], "finish reason is 'length', not 'stop'"),
        ([Started(), *said(*"acbd"), Finished("stop"), ANSWER], "1 chunks lost, from chunk 1 on"),
        ([Started(), *said(*"abcb"), Finished("stop"), ANSWER], "1 chunks lost, from chunk 4 on"),
        ([Started(), *said(*"abcbdd"), Finished("stop"), ANSWER], "1 chunks doubled, from chunk 5 on"),
        ([Started(), *said(*"aabcbd"), Finished("stop"), ANSWER], "1 chunks doubled, from chunk 1 on"),
        ([Started(), *said(*"acbbd"), Finished("stop"), ANSWER], "2 chunks swapped, from chunk 1 on"),
        ([Started(), *said(*"abxbd"), Finished("stop"), ANSWER], "1 chunks never said, from chunk 2 on"),
        ([Started(), *said("ab", *"cbd"), Finished("stop"), ANSWER], "2 chunks lost, from chunk 0 on"),
        ([*WHOLE[:-1], Completion("abcb", "stop", Usage(), Meta())], "answer is 'abcb', not 'abcbd'"),
        ([*WHOLE[:3], StreamInterruptedError("cut")], "failed: StreamInterruptedError('cut')"),
    ],
)
def test_it_finds(seen, wrong):
    assert f"turn 7: {wrong}" in check(seen)


def test_it_finds_a_turn_that_nobody_started():
    history = History()
    history.saw(8, ANSWER)
    assert problems(history, {}, frozenset()) == ["turn 8: nobody started it"]
