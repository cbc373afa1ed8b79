"""What layouts share whose scenes are folders of named files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from loco.datasets.checklist import Checklist
from loco.datasets.files import where_from
from loco.datasets.raw import RawScene
from loco.errors import DataError


class SceneFolder(RawScene):
    """A scene in a folder of its own, without labels and sparse model."""

    remedy: ClassVar[str]  # what to do for a scene of the user's own
    published: ClassVar[str] = ""  # regular expression of the names that the scenes of the dataset have
    download: ClassVar[str] = ""  # what to do for these

    def __init__(self, raw: Path, scene: str) -> None:
        """Raises DataError if a needed file is missing."""
        super().__init__(raw, scene)
        for file in self.missing(self.folder, scene):
            raise self.is_missing(file, scene)

    @classmethod
    def missing(cls, folder: Path, scene: str) -> list[Path]:
        """The needed files and folders that are not there.

        Raises:
            OSError: the scene's folder cannot be entered, so what is there is not known.
        """
        if os.path.lexists(folder):
            os.stat(os.path.join(folder, "."))
        sources = cls.sources(folder, scene)
        return [source.path for source in sources if source.needed and not os.path.lexists(source.path)]

    @classmethod
    def remedy_of(cls, scene: str) -> str:
        """What to do about files of a scene that are missing or broken."""
        return where_from(scene, cls.published, cls.download, cls.remedy)

    @classmethod
    def is_missing(cls, file: Path, scene: str) -> DataError:
        """The error to raise where this file is."""
        return DataError(f"{file.name} is missing", file=file, scene=scene, remedy=cls.remedy_of(scene))

    @classmethod
    def note_missing(cls, folder: Path, scene: str, found: Checklist) -> list[str]:
        """Add the needed files that are missing to a checklist; their names."""
        missing = cls.missing(folder, scene)
        for file in missing:
            found.add_error(cls.is_missing(file, scene))
        return [file.name for file in missing]
