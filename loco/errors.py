"""Errors that users meet: each says which file, which scene, what was expected and found, and what to do."""

from __future__ import annotations

from pathlib import Path


class LocoError(Exception):
    """Base of every error that a user's data or settings can cause. Shown without a traceback.

    Its text has no control characters but line breaks: names and contents of files could otherwise control a terminal.
    """

    def __str__(self) -> str:
        return printable_lines(super().__str__())


class ConfigError(LocoError):
    """The configuration is not usable as it stands."""


class DataError(LocoError):
    """A file of the data is missing, broken, or does not belong to its neighbours.

    Args:
        problem: one sentence that says what is wrong.
        file: the file in question.
        scene: the scene that it belongs to.
        expected: what a good file would hold.
        found: what it holds.
        remedy: what the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        scene: str | None = None,
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        facts = {"file": file, "scene": scene, "expected": expected, "found": found, "what to do": remedy}
        lines = [problem, *(f"  {name}: {printable(str(fact))}" for name, fact in facts.items() if fact is not None)]
        super().__init__("\n".join(lines))
        self.problem = printable_lines(problem)


def printable_lines(text: str) -> str:
    """Return a text in which control characters are escaped, except line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def printable(text: str) -> str:
    """Return a text on one line: control characters are escaped, which a file's name or content may hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
