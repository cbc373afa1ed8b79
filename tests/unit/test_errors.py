"""Texts of messages."""

from __future__ import annotations

import pytest

from loco.errors import counted


@pytest.mark.parametrize(("number", "text"), [(0, "0 scenes"), (1, "1 scene"), (2, "2 scenes")])
def test_a_noun_is_in_the_plural_unless_there_is_one(number: int, text: str) -> None:
    assert counted(number, "scene") == text
