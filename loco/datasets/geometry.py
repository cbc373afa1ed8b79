"""The geometric self-check of a raw scene: test whether its frames are consistent, and find the cause if not.

It is part of the check of a scene (:meth:`loco.datasets.raw.RawScene.check`). Scenes with depth are compared by
:class:`loco.geometry.consistency.Views`, those of a sparse model by :class:`loco.geometry.consistency.Sightings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco.datasets.checklist import Checklist
from loco.datasets.local import LocalScene, in_local_coordinates, origin_of
from loco.datasets.raw import MAX_DEPTH, NOTED_BEYOND, RawScene, measured_depth
from loco.errors import DataError
from loco.geometry.cameras import relative_rotation_angle
from loco.geometry.consistency import Agreement, Views
from loco.geometry.suspects import MIN_CONSISTENCY, Diagnosis, diagnose

ANCHORS = 8  # evenly spaced frames of a scene that are compared with neighbours
GAPS = (1, 2, 4, 8)  # distances in frames from an anchor to its neighbour in the order of the files
USUAL_CONSISTENCY = 0.9  # a note is written below; correct recordings reach 0.99
USUAL_DEPTH = 0.05, 200.0  # range of the median depth of a scene, metres; outside it, the unit is probably wrong
THINNED = 64  # the median is computed from every 64th measured pixel, because the frames may have tens of millions
TURN = 30.0  # rotation in degrees that counts as much as the 5 % quantile of the distances to the other frames


def check_geometry(scene: RawScene, found: Checklist, accept: bool) -> dict[str, Any]:
    """Add a problem to ``found`` if the frames of a scene are inconsistent with each other.

    Args:
        scene: scene to check, in the coordinates of its files.
        found: checklist to which problems are added.
        accept: add a note instead of a problem.

    Returns:
        Facts for the manifest: ``origin`` of its local coordinates (:mod:`loco.datasets.local`), and ``geometry``:
        numbers of compared ``frames`` and ``pairs``, ``overlap``, ``error_cm`` and ``consistency``
        (:class:`loco.geometry.consistency.Agreement`), and ``fault`` with ``repaired``, the same numbers after undoing
        the fault. Empty if images share no world frame.
    """
    poses = scene.poses()
    if poses is None:
        return {}
    facts: dict[str, Any] = {"origin": origin_of(scene).tolist()}
    if len(poses) < 2:
        return facts
    chosen, tracks = sample(poses), scene.tracks()
    local = in_local_coordinates(scene)
    diagnosis = _diagnose(local, chosen, found) if tracks is None else _diagnose_model(local, chosen)
    facts["geometry"] = {"frames": len(chosen), **_numbers(diagnosis.found)}
    if diagnosis.fault is not None:
        facts["geometry"]["fault"] = diagnosis.fault
        if diagnosis.repaired is not None:
            facts["geometry"]["repaired"] = _numbers(diagnosis.repaired)
        error = _error(diagnosis, scene)
        if accept:
            found.note(f"accepted by `check.accept_geometry`: {error.problem}")
        else:
            found.add_error(error)
    elif tracks is not None and not len(tracks):
        found.add_error(_no_usable_point(scene, diagnosis.found))
    elif not diagnosis.found.pairs:
        if not found.problems:
            found.note("0 pairs: the frames could not be compared, because no two of them overlap")
    elif diagnosis.found.consistency < USUAL_CONSISTENCY:
        found.note(
            "the frames are less consistent than those of correct recordings usually are "
            f"({_text(diagnosis.found)}), and "
            "none of the tested errors explains it: check the poses and the intrinsics"
        )
    return facts


def sample(poses: NDArray[np.float64]) -> NDArray[np.int64]:
    """Choose overlapping frames, spread over a scene; all frames if there are few.

    Three other frames are chosen for each of :data:`ANCHORS` frames: a neighbour in the order of the files, and the
    frame of the nearest pose at another position that is not such a neighbour (a loop closure), both by the poses and
    by their inverses, because the poses may be inverted. If the poses are wrong, the neighbour still shows the same
    surfaces; if consecutive frames do not overlap, as in a panorama, the others do.

    Args:
        poses: (n, 4, 4), as stated in the files: possibly not camera-to-world.

    Returns:
        Indices of frames, ascending.
    """
    n = len(poses)
    if n <= 3 * ANCHORS:
        return np.arange(n)
    anchors = np.linspace(0, n - 1, ANCHORS).round().astype(int)
    gaps = np.resize(GAPS, ANCHORS)
    following = np.where(anchors + gaps < n, anchors + gaps, anchors - gaps)
    near = [_nearest(candidates, anchor) for candidates in (poses, np.linalg.inv(poses)) for anchor in anchors]
    return np.unique(np.concatenate([anchors, following, near]))


def _nearest(poses: NDArray[np.floating], anchor: int) -> int:
    """Return the frame of the nearest pose that is not a neighbour in the order, at another position if possible.

    Nearness combines distance and rotation (:data:`TURN`).
    """
    remote = np.abs(np.arange(len(poses)) - anchor) > max(GAPS)
    distance = np.linalg.norm(poses[:, :3, 3] - poses[anchor, :3, 3], axis=1)
    elsewhere = remote & (distance > 1e-2 * np.median(distance))
    if not elsewhere.any():
        elsewhere = remote
    unit = np.quantile(distance[elsewhere], 0.05) or 1.0
    cost = distance / unit + relative_rotation_angle(poses, poses[anchor]) / TURN
    return int(np.flatnonzero(elsewhere)[cost[elsewhere].argmin()])


def _diagnose(scene: RawScene | LocalScene, chosen: NDArray[np.int64], found: Checklist) -> Diagnosis:
    names, poses = scene.names("all"), scene.poses()
    depths, cameras = [], []
    for frame in scene.frames([names[k] for k in chosen]):
        depths.append(frame.depth)
        cameras.append(frame.camera_of_depth)
    _check_depth(depths, scene, found)
    views = Views(depths, [camera.intrinsics for camera in cameras], rows_from_bottom=scene.opengl)
    of_depth = np.array([camera.pose for camera in cameras])
    in_color = np.linalg.inv(poses[chosen]) @ of_depth

    def moved(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        return poses[numbers % len(poses)] @ in_color

    return diagnose(views, of_depth, moved, chosen)


def _check_depth(depths: Sequence[NDArray[np.floating]], scene: RawScene | LocalScene, found: Checklist) -> None:
    """Add a problem if no frame has depth or its unit seems wrong; otherwise a note if much is beyond ``MAX_DEPTH``."""
    beyond, thinned = [], []
    for known in map(measured_depth, depths):
        if len(known):
            beyond.append(np.mean(known > MAX_DEPTH))
            thinned.append(known[::THINNED].copy())  # a view would keep the whole array in memory
    if not beyond:
        found.add(
            "none of the sampled frames has valid depth",
            file=scene.folder,
            expected="z-depth, in which 0 and 65535 denote missing depth",
            found=f"only missing depth in {len(depths)} depth images",
            remedy="export the depth images again, and check the program that writes them",
        )
    elif not USUAL_DEPTH[0] <= (median := np.median(np.concatenate(thinned))) <= USUAL_DEPTH[1]:
        found.add(
            f"the depth has a median of {median:.3g} m, so its unit is probably wrong",
            file=scene.folder,
            expected=f"a median between {USUAL_DEPTH[0]:g} and {USUAL_DEPTH[1]:g} m",
            found=f"{median:.3g} m in {len(beyond)} frames",
            remedy="check the unit of the depth images (`depth_scale`, if the format has it), and that of the poses, "
            "whose positions are in metres",
        )
    elif np.mean(beyond) > NOTED_BEYOND:
        found.note(
            f"{np.mean(beyond):.0%} of the measured depth of {len(beyond)} frames is beyond {MAX_DEPTH:g} m, the "
            "default of `frames.max_depth`, up to which depth is used; if the scene is smaller, the depth scale is "
            "wrong"
        )


def _diagnose_model(scene: RawScene | LocalScene, chosen: NDArray[np.int64]) -> Diagnosis:
    names, poses = scene.names("all"), scene.poses()
    sightings = scene.sightings([names[k] for k in chosen])
    return diagnose(sightings, poses[chosen], lambda numbers: poses[numbers % len(poses)], chosen)


def _numbers(agreement: Agreement) -> dict[str, Any]:
    return {
        "pairs": agreement.pairs,
        "overlap": round(agreement.overlap, 4),
        "error_cm": round(100 * agreement.error, 3) if np.isfinite(agreement.error) else None,
        "consistency": round(agreement.consistency, 4),
    }


def _error(diagnosis: Diagnosis, scene: RawScene) -> DataError:
    fault, sparse = diagnosis.fault, scene.tracks() is not None
    # In OpenCV axes, an inverted pose in OpenGL axes is diagnosed as inverted with changed axes, and vice versa.
    if scene.opengl and fault.startswith("inverse"):
        fault = {"inverse": "inverse and axes", "inverse and axes": "inverse"}[fault]
    cause, remedy = (_OF_MODELS if sparse else {}).get(fault, _EXPLANATIONS[fault])(diagnosis.amount)
    if fault == "depth" and scene.depth_units is not None:
        fitting = scene.depth_units / diagnosis.amount
        remedy = (
            f"the depth scale is {scene.depth_units:g} units per metre, and about {fitting:.4g} "
            f"would be consistent: correct `depth_scale` of the dataset or depth_scale.txt; otherwise {remedy}"
        )
    found = f"unchanged: {_text(diagnosis.found)}"
    if diagnosis.repaired is not None:
        found += f"; after the correction: {_text(diagnosis.repaired)}"
    return DataError(
        f"the {'points' if sparse else 'depth images'} and poses of the frames are inconsistent: {cause}",
        file=scene.folder,
        scene=scene.scene,
        expected="frames that are consistent"
        if diagnosis.repaired is not None
        else f"consistency of at least {MIN_CONSISTENCY:.0%}",
        found=found,
        remedy=f"{remedy}; if the scene is correct, set `check.accept_geometry: true`",
    )


def _text(agreement: Agreement) -> str:
    if not agreement.pairs:
        return "no two frames overlap"
    text = f"consistency {agreement.consistency:.0%}, overlap {agreement.overlap:.0%}"
    if np.isfinite(agreement.error):
        text += f", median disagreement {100 * agreement.error:.1f} cm"
    return text


def _no_usable_point(scene: RawScene, agreement: Agreement) -> DataError:
    return DataError(
        "no point of the sparse model can be used, because all reprojection errors are too large",
        file=scene.folder,
        scene=scene.scene,
        found=_text(agreement),
        remedy="create the model again with the current photographs and cameras",
    )


def _factor(amount: float) -> str:
    """Describe the error of a quantity that is correct after multiplication by ``amount``."""
    factor = max(amount, 1 / amount)
    number = f"{factor:.0f}" if factor >= 100 else f"{factor:.3g}"
    return f"{number} times too {'large' if amount < 1 else 'small'}"


_EXPLANATIONS: dict[str, Callable[[float], tuple[str, str]]] = {
    "inverse": lambda _: (
        "poses appear to be world-to-camera; camera-to-world is expected",
        "invert each pose",
    ),
    "axes": lambda _: (
        "camera axes appear to follow the other convention, with y and z reversed (OpenGL: y up, z backward; "
        "OpenCV: y down, z forward)",
        "change the sign of the second and third column of each pose",
    ),
    "inverse and axes": lambda _: (
        "poses appear to be world-to-camera; camera-to-world is expected, and the y and z axes of the cameras appear "
        "reversed "
        "(OpenGL against OpenCV)",
        "invert each pose, then change the sign of its second and third column",
    ),
    "shift": lambda amount: (
        f"poses appear to be shifted against the frames by {abs(amount):.0f}: the pose of a frame is that of the frame "
        f"{abs(amount):.0f} {'before' if amount > 0 else 'after'} it",
        "assign each frame its own pose",
    ),
    "reversed": lambda _: (
        "poses appear to be in reverse order: the first frame has the last pose",
        "reverse the order of the poses",
    ),
    "depth": lambda amount: (
        f"depth appears to be {_factor(amount)} relative to the positions of the cameras",
        "write positions in metres",
    ),
    "intrinsics": lambda amount: (
        f"the intrinsics appear to be {_factor(amount)}, as if the images had been resized without them",
        "write the intrinsics of the current images",
    ),
    "focal": lambda amount: (
        f"the focal lengths appear to be {_factor(amount)}, while the principal point seems correct",
        "write the focal lengths of the current images in pixels",
    ),
    "unknown": lambda _: (
        "the frames contradict each other, and none of the tested errors explains it",
        "check for errors that are not tested: shuffled poses or poses of another recording, the order of "
        "quaternions (w first "
        "or last), transposed rotations, mirrored or ROS body axes, depth along the ray instead of z-depth, and colour "
        "and depth of different crops",
    ),
}
_OF_MODELS: dict[str, Callable[[float], tuple[str, str]]] = {
    "inverse": lambda _: (
        "poses appear to be camera-to-world; COLMAP's world-to-camera is expected",
        "invert each pose",
    ),
    "axes": lambda _: (
        _EXPLANATIONS["axes"](1.0)[0],
        "change the sign of the second and third row of each pose",
    ),
    "inverse and axes": lambda _: (
        "poses appear to be camera-to-world; COLMAP's world-to-camera is expected, and the y and z axes of the "
        "cameras appear "
        "reversed (OpenGL against OpenCV)",
        "invert each pose, then change the sign of its second and third row",
    ),
    "depth": lambda amount: (
        f"the coordinates of the points appear to be {_factor(amount)} relative to the positions of the cameras",
        "write points and positions in the same unit",
    ),
    "intrinsics": lambda amount: (
        f"the intrinsics appear to be {_factor(amount)} relative to the observations of the points",
        "create the model from the current photographs, or restore those from which it was made",
    ),
}  # the explanations that differ for a sparse model
