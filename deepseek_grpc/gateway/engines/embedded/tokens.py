"""Text to tokens and back.

A token is a run of at most 32 letters, digits and underscores, or one other character; either may have one space before
it. Concatenated tokens are the text, byte for byte. Only ASCII letters form runs, so that the borders don't depend on
the Unicode tables of a Python version.

Where a token ends depends on the next character alone. So text cut anywhere has the same tokens as the whole, except
perhaps the last one, which is then the beginning of a token of the whole. Continuing an answer relies on this.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

__all__ = ["MAX_TOKEN_CHARS", "chunks", "split", "stem"]

MAX_TOKEN_CHARS = 33
"""The longest token in characters, its space included."""

_CHUNK_CHARS = 1024

_TOKEN = re.compile(r" ?\w{1,32}| ?[^\w\s]|\s", re.ASCII)


def split(text: str) -> list[str]:
    """Splits text into tokens; joined, they are the text.

    >>> split("A deadline, in seconds.")
    ['A', ' deadline', ',', ' in', ' seconds', '.']
    """
    return _TOKEN.findall(text)


def chunks(text: str) -> Iterator[list[str]]:
    """Splits like `split`, some hundred tokens at a time, so that the caller can pause in between.

    >>> sum(len(chunk) for chunk in chunks("word " * 10_000)) == len(split("word " * 10_000))
    True
    """
    start, size = 0, len(text)
    while start < size:
        end = start + _CHUNK_CHARS
        found: list[str] = _TOKEN.findall(text, start, end)
        if end < size:  # The last token may go on behind the chunk; the next chunk starts with it.
            end -= len(found.pop())
        yield found
        start = end


@functools.lru_cache(maxsize=16_384)
def stem(token: str) -> str:
    """Returns what a word is compared by: lower case, without its space and without the endings of plurals and verbs.

    >>> stem(" Deadlines") == stem("deadline")
    True
    """
    word = token.strip().lower()
    if len(word) > 5 and word.endswith("ing"):
        word = word[:-3]
        if word[-1] == word[-2]:
            word = word[:-1]
    elif len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if len(word) > 4 and word.endswith("ed"):
        word = word[:-2]
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word
