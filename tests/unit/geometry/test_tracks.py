import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loco.geometry.tracks import patch_tracks, track_overlap
from loco.steps.correspondence import correspond_scene
from loco.storage import Correspondences, Frames

SIZE, GRID = (30, 50), (3, 10)  # patches of 10 x 5 pixels


def nearest_by_hand(uv, track, grid, size):
    """Compute the result one patch and one observation at a time."""
    (rows, columns), (height, width) = grid, size
    tracks = np.full(grid, -1)
    for row in range(rows):
        for column in range(columns):
            left, right = column * width / columns, (column + 1) * width / columns
            top, bottom = row * height / rows, (row + 1) * height / rows
            within = [
                ((u - (left + right) / 2) ** 2 + (v - (top + bottom) / 2) ** 2, number)
                for (u, v), number in zip(uv.tolist(), track.tolist())
                if left <= u < right and top <= v < bottom
            ]
            if within:
                tracks[row, column] = min(within)[1]
    return tracks


def overlap_by_hand(tracks, frame, track):
    n = len(tracks)
    overlap = np.zeros((n, n))
    for i in range(n):
        shown = tracks[i][tracks[i] >= 0].tolist()
        for j in range(n):
            observed = set(track[frame == j].tolist())
            overlap[i, j] = sum(number in observed for number in shown) / len(shown) if shown else 0
    return overlap


@given(st.integers(0, 10_000))
def test_patch_tracks_agrees_with_one_patch_at_a_time(seed):
    rng = np.random.default_rng(seed)
    # Half pixels put many observations on the borders of patches and at equal distances from their centres.
    uv = rng.integers(-4, 2 * np.array(SIZE[::-1]) + 4, (rng.integers(0, 80), 2)) / 2
    track = rng.permutation(100)[: len(uv)]
    np.testing.assert_array_equal(patch_tracks(uv, track, GRID, SIZE), nearest_by_hand(uv, track, GRID, SIZE))


@pytest.mark.parametrize("width", [30, 49, 161])
def test_a_point_at_the_very_border_stays_in_its_row(width):
    columns = 7
    uv = np.array([[np.nextafter(width, 0), 0.5]])
    tracks = patch_tracks(uv, np.array([4]), (2, columns), (2, width))
    assert tracks[0, columns - 1] == 4
    assert (tracks >= 0).sum() == 1


@given(st.integers(0, 10_000))
def test_track_overlap_agrees_with_sets(seed):
    rng = np.random.default_rng(seed)
    n, points = 5, 40
    frame = np.sort(rng.integers(0, n - 1, 60))  # the last image observes nothing
    track = rng.integers(0, points, 60)
    uv = rng.uniform(0, SIZE[::-1], (60, 2))
    tracks = np.array([patch_tracks(uv[frame == k], track[frame == k], GRID, SIZE) for k in range(n)])
    overlap = track_overlap(tracks, frame, track)
    np.testing.assert_allclose(overlap, overlap_by_hand(tracks, frame, track), rtol=1e-6)
    some = (tracks >= 0).any(axis=(1, 2))
    np.testing.assert_array_equal(np.diag(overlap), some.astype(float))
    assert not some[-1]
    assert not overlap[-1].any()
    assert not overlap[:, -1].any()


def test_nothing_observed_at_all():
    nothing = np.empty(0, int)
    tracks = patch_tracks(np.empty((0, 2)), nothing, GRID, SIZE)
    assert (tracks == -1).all()
    assert not track_overlap(tracks[None], nothing, nothing).any()


@pytest.fixture
def frames(tmp_path):
    """Two frames of a sparse model: both observe points 0 and 1; only the first observes point 2."""
    path = tmp_path / "frames.h5"
    sizes = {"n": 2, "h": 8, "w": 8, "t": 3, "m": 5}
    with Frames.create(path, "d", "s", sizes) as file:
        file.facts["names"] = ["a", "b"]
        file["track"][:] = [[1, 2, 3], [4, 5, 6], [7, 8, 1 / 3]]
        file["observation_frame"][:] = [0, 0, 0, 1, 1]
        file["observation_track"][:] = [0, 1, 2, 1, 0]
        file["observation_uv"][:] = [[1, 1], [5, 1], [5, 5], [2, 2], [3, 3]]
    return path


def test_correspondences_of_a_sparse_model(frames, tmp_path):
    out = tmp_path / "correspondences.h5"
    correspond_scene(frames, out, {"stride": 4, "overlap_tolerance": 0.05})
    with Correspondences(out) as found, Frames(frames) as opened:
        assert (found.dataset, found.scene, found.frames_id) == ("d", "s", opened.content_id)
        assert found.facts["stride"] == 4
        # In the second frame both points are in one patch; the point nearest to its centre is used.
        np.testing.assert_array_equal(found["valid"][:], [[[1, 1], [0, 1]], [[1, 0], [0, 0]]])
        expected = np.zeros((2, 2, 2, 3), np.float32)
        expected[0, 0, 0], expected[0, 0, 1], expected[0, 1, 1] = [1, 2, 3], [4, 5, 6], [7, 8, 1 / 3]
        expected[1, 0, 0] = [4, 5, 6]
        np.testing.assert_array_equal(found["points"][:], expected)
        np.testing.assert_allclose(found["overlap"][:], [[1, 2 / 3], [1, 1]])
