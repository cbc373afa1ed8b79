"""Keypoints and matches of photographs, in the formats of other tools: hloc and COLMAP.

1. :mod:`loco.matching.keypoints`: keypoints with descriptors, at the centres of patches or at given points.
2. :mod:`loco.matching.pairs`: which images are matched.
3. :mod:`loco.matching.hloc`: keypoints and matches in the files of hloc.
4. :mod:`loco.matching.colmap_database`: a database of COLMAP from these files.

This file imports nothing, because the command line reads its constants.
"""

DETECTORS = ("patches", "sift")  # keypoint detectors
SELECTIONS = ("exhaustive", "sequential", "retrieval")  # strategies for selecting the image pairs to match
