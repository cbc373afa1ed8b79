"""An extension of griffe, which reads docstrings: the roles of Sphinx become links, double backticks single ones."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:mod|class|func|meth|data|attr|exc|obj):`~?([\w.]+)`")


class CrossReferences(griffe.Extension):
    """Convert the docstrings of a package from the roles of Sphinx to the links of mkdocs-autorefs."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        self._convert(pkg)

    def _convert(self, found: griffe.Object) -> None:
        if found.is_class:  # attributes without a description are not part of the interface
            attributes = [name for name, member in found.members.items() if member.is_attribute]
            for name in attributes:
                if not found.members[name].docstring:
                    del found.members[name]
        if found.docstring:
            text = ROLE.sub(lambda role: _link(found, role[1]), found.docstring.value)
            found.docstring.value = text.replace("``", "`")
        for member in found.members.values():
            if not member.is_alias:
                self._convert(member)


def _link(found: griffe.Object, name: str) -> str:
    """Return a link to what a name means where ``found`` is defined; without a page of that name, only the name."""
    try:
        target = found.resolve(name)
    except griffe.NameResolutionError:
        target = name
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'
