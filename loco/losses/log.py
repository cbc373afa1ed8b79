"""The log of a loss, whose numbers are copied from the device on access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor


class Log(Mapping[str, float]):
    """A mapping from names to numbers. Accessing a number synchronises with the device that computes it.

    Attributes:
        numbers: the same numbers, as scalar tensors if they are computed on a device.
    """

    def __init__(self, numbers: Mapping[str, Tensor | float]) -> None:
        self.numbers = dict(numbers)

    def __getitem__(self, name: str) -> float:
        number = self.numbers[name]
        return number.item() if isinstance(number, Tensor) else number

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return repr(dict(self))
