"""The text that the embedded model learns from: questions and answers, written for this project and frozen.

Seeds reproduce an answer only as long as the text stays the same, so its SHA-256 is pinned here. After a change on
purpose put what this prints into `CORPUS_SHA256`; the golden answer in tests/unit/test_embedded_engine.py changes too:

    python -c "from deepseek_grpc.gateway.engines.embedded import corpus; print(corpus.digest(corpus.read()))"
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from deepseek_grpc.errors import ConfigurationError

__all__ = ["CORPUS_SHA256", "Passage", "digest", "load", "parse", "read"]

CORPUS_FILES = ("grpc.txt", "models.txt", "data.txt", "project.txt")
"""In the order in which the model reads them."""

CORPUS_SHA256 = "7b84b6fddc631e93da3ac752c7ae90b0fbdfa3b1bee5664d0b4fbaa8abb83f5d"
"""Of the files one after the other, with line ends as "\\n"."""

_FOLDER = Path(__file__).with_name("passages")


@dataclass(frozen=True, slots=True)
class Passage:
    """A question and its answer, each one line."""

    question: str
    answer: str


def read(folder: Path = _FOLDER) -> str:
    """Reads the whole text. A checkout may have changed the line ends, so they are normalised.

    Raises:
        ConfigurationError: A file is missing or is not UTF-8.
    """
    try:
        return "".join((folder / name).read_text(encoding="utf-8") for name in CORPUS_FILES)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the embedded engine cannot read its corpus: {error}") from error


def digest(text: str) -> str:
    """Returns the SHA-256 of a text, as hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str) -> tuple[Passage, ...]:
    """Parses blocks of a `Q:` line and an `A:` line, with blank lines between the blocks.

    Raises:
        ConfigurationError: A block has another form, or has a character that JSON would have to escape.
    """
    passages = []
    lines = [line for line in text.split("\n") if line]
    for question, answer in zip(lines[::2], [*lines[1::2], ""], strict=False):
        if not (question.startswith("Q: ") and answer.startswith("A: ")):
            raise ConfigurationError(f"the corpus of the embedded engine is malformed near {question!r}")
        if not (answer.isascii() and answer.isprintable()) or '"' in answer or "\\" in answer:
            raise ConfigurationError(f"an answer in the corpus needs escapes in JSON: {answer!r}")
        passages.append(Passage(question[3:], answer[3:]))
    return tuple(passages)


def load(folder: Path = _FOLDER, sha256: str = CORPUS_SHA256) -> tuple[Passage, ...]:
    """Loads the frozen passages.

    Raises:
        ConfigurationError: The text isn't the one that was frozen, so seeds would not reproduce.
    """
    text = read(folder)
    found = digest(text)
    if found != sha256:
        raise ConfigurationError(
            f"the corpus of the embedded engine has SHA-256 {found}, expected {sha256}: reinstall the package",
            metadata={"found": found, "expected": sha256},
        )
    return parse(text)
