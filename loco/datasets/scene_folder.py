"""Code shared by layouts whose scenes are folders of named files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from loco.datasets.checklist import Checklist
from loco.datasets.files import where_from
from loco.datasets.raw import RawScene
from loco.errors import DataError


class SceneFolder(RawScene):
    """A scene in a separate folder, without labels and sparse model."""

    remedy: ClassVar[str]  # remedy for a scene of the user's own
    published: ClassVar[str] = ""  # regular expression of the scene names of the dataset
    download: ClassVar[str] = ""  # remedy for scenes of the dataset

    def __init__(self, raw: Path, scene: str) -> None:
        """Open a scene. Raise DataError if a required file is missing."""
        super().__init__(raw, scene)
        for file in self.missing(self.folder, scene):
            raise self.is_missing(file, scene)

    @classmethod
    def missing(cls, folder: Path, scene: str) -> list[Path]:
        """Return the required files and folders that are missing.

        Raises:
            OSError: the scene's folder cannot be entered, so its content is unknown.
        """
        if os.path.lexists(folder):
            os.stat(os.path.join(folder, "."))
        sources = cls.sources(folder, scene)
        return [source.path for source in sources if source.needed and not os.path.lexists(source.path)]

    @classmethod
    def remedy_of(cls, scene: str) -> str:
        """Return the remedy for missing or broken files of a scene."""
        return where_from(scene, cls.published, cls.download, cls.remedy)

    @classmethod
    def is_missing(cls, file: Path, scene: str) -> DataError:
        """Return the error for a missing file."""
        return DataError(f"{file.name} is missing", file=file, scene=scene, remedy=cls.remedy_of(scene))

    @classmethod
    def note_missing(cls, folder: Path, scene: str, found: Checklist) -> list[str]:
        """Add the missing required files to a checklist, and return their names."""
        missing = cls.missing(folder, scene)
        for file in missing:
            found.add_error(cls.is_missing(file, scene))
        return [file.name for file in missing]
