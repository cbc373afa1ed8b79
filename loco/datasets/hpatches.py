"""HPatches: photographs of planes, or of scenes from one camera position, with the homographies between them.

Balntas et al., CVPR 2017: 116 sequences of six images, ``hpatches-sequences-release/<sequence>/{1,...,6}.ppm``. The
light changes in those whose names begin with ``i_`` (57), the viewpoint in those with ``v_`` (59). ``H_1_k`` is a 3 x 3
matrix that maps pixels of image 1 to pixels of image k.

Pixel centres are assumed to be integers, with (0, 0) at the top-left pixel, as in the code of the methods that are
commonly evaluated on HPatches (OpenCV, SuperPoint, D2-Net, LoFTR), so the homographies are converted to pixel centres
at i + 0.5. Since D2-Net, eight sequences of larger images are usually excluded (``config/splits/hpatches_108.txt``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loco.datasets.files import RESTORE
from loco.datasets.photographs import Listing, Photographs
from loco.datasets.pose_files import read_matrix
from loco.errors import DataError

REFERENCE, OTHERS = 1, range(2, 7)
CHANGES = {"i": "illumination", "v": "viewpoint"}
HALF_A_PIXEL = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # from pixel centres at i to pixel centres at i + 0.5


class HPatchesScene(Photographs):
    """One sequence.

    Its ground truth consists of ``change``, "illumination" or "viewpoint", and ``pairs``, a list of image names ``a``
    and ``b`` with the ``homography`` (3 x 3, a list of rows) that maps raw pixels of a to raw pixels of b.
    """

    format = "hpatches"
    remedy = (
        "a sequence consists of 1.ppm to 6.ppm and H_1_2 to H_1_6 (docs/datasets.md): add the missing files to its "
        "folder"
    )

    @classmethod
    def listing(cls, folder: Path, scene: str) -> Listing:
        change = CHANGES.get(scene.split("_")[0])
        if change is None:
            raise DataError(
                "the name is not that of a sequence",
                file=folder,
                scene=scene,
                expected="i_... (the illumination changes) or v_... (the viewpoint changes)",
                remedy="list the folders of hpatches-sequences-release in `scenes`",
            )
        images = {str(k): folder / f"{k}.ppm" for k in (REFERENCE, *OTHERS)}
        pairs = [
            {"a": str(REFERENCE), "b": str(k), "homography": _homography(folder / f"H_{REFERENCE}_{k}", scene).tolist()}
            for k in OTHERS
        ]
        return Listing(images, {"change": change, "pairs": pairs}, {"pairs": len(pairs)})


def _homography(file: Path, scene: str) -> NDArray[np.float64]:
    """Read the homography (3, 3) of a file, converted to pixel centres at i + 0.5."""
    matrix = read_matrix(file, (3, 3), scene)
    if not np.isfinite(matrix).all() or matrix[2, 2] == 0 or abs(np.linalg.det(matrix / matrix[2, 2])) < 1e-9:
        raise DataError(
            "the file does not contain a homography",
            file=file,
            scene=scene,
            expected="an invertible 3 x 3 matrix",
            found=" ".join(f"{value:g}" for value in matrix.ravel()),
            remedy=RESTORE,
        )
    return HALF_A_PIXEL @ matrix @ np.linalg.inv(HALF_A_PIXEL)
