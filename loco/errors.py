"""Errors for users: each states the file, the scene, what was expected and found, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class LocoError(Exception):
    """Base of all errors that are caused by the user's data or settings. It is shown without a traceback.

    Its text has no control characters except line breaks, so names and contents of files cannot control a terminal.
    """

    def __str__(self) -> str:
        return printable_lines(super().__str__())


class ConfigError(LocoError):
    """The configuration is invalid."""


class DataError(LocoError):
    """A data file is missing, broken, or does not match the files that it is used with.

    Args:
        problem: one sentence that states what is wrong.
        file: the file.
        scene: the scene that it belongs to.
        expected: content of a valid file.
        found: actual content.
        remedy: how the user can fix it.
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


def hint(name: Any, known: Iterable[Any]) -> str:
    """Return the end of a message about an unknown name: the most similar known name, or some known names."""
    known = [str(item) for item in known]
    near = get_close_matches(str(name), known, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; known: {shown or 'none'}"


def counted(number: int, noun: str) -> str:
    """Return a number with a noun in the singular or plural: ``1 scene``, ``3 scenes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable_lines(text: str) -> str:
    """Return a text in which control characters are escaped, except line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def printable(text: str) -> str:
    """Return a text on one line, with the control characters of file names or contents escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
