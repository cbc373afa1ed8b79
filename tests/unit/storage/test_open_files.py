import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loco.errors import DataError
from loco.storage import Correspondences, Features, Frames
from loco.storage.open_files import LazyFiles, OpenFiles

COUNT, LIMIT = 150, 128  # scenes of three files each; descriptors of a process
SEES_DESCRIPTORS = pytest.mark.skipif(sys.platform != "linux", reason="lists descriptors by /proc")


def write_frames(path: Path, value: int = 0, scene: str = "s") -> Path:
    with Frames.create(path, "d", scene, {"n": 4, "h": 8, "w": 8}, {"names": list("abcd")}) as file:
        file["pose"][:], file["intrinsics"][:], file["rgb"][:] = np.eye(4), np.eye(3), value
    return path


def write_scene(folder: Path, scene: str = "s") -> list[Path]:
    """Write frames, correspondences and features of a scene whose images all overlap."""
    paths = [folder / f"{scene}.{kind.format}.h5" for kind in (Frames, Correspondences, Features)]
    with Frames(write_frames(paths[0], scene=scene)) as frames:
        frames_id = frames.content_id
    facts, sizes = {"stride": 4, "extent": [8, 8]}, {"n": 4, "h": 2, "w": 2}
    with Correspondences.create(paths[1], "d", scene, sizes, facts, frames_id=frames_id) as file:
        file["points"][:], file["valid"][:], file["overlap"][:] = 1, True, 1
    with Features.create(paths[2], "d", scene, sizes | {"c": 3}, facts, frames_id=frames_id) as file:
        file["features"][:], file["norm"][:] = 0.5, 1
    return paths


def opened_names() -> set[str]:
    """Return the names of the HDF5 files that this process has open, according to the system."""
    links = (os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    return {Path(link).name for link in links if link.endswith(".h5")}


@SEES_DESCRIPTORS
def test_the_least_recently_used_file_is_closed(tmp_path):
    paths = [write_frames(tmp_path / f"lru{k}.h5", value=k) for k in range(4)]
    files = OpenFiles(capacity=2)
    for k in (0, 1, 0, 2):
        assert files.get(Frames, paths[k])["rgb"][0].max() == k
    assert opened_names() & {path.name for path in paths} == {"lru0.h5", "lru2.h5"}
    assert files.get(Frames, paths[0]) is files.get(Frames, str(paths[0]))
    files.close()
    assert not opened_names() & {path.name for path in paths}


@SEES_DESCRIPTORS
def test_a_file_that_is_held_stays_usable(tmp_path):
    paths = [write_frames(tmp_path / f"held{k}.h5", value=k) for k in range(3)]
    files = OpenFiles(capacity=1)
    held = files.get(Frames, paths[2])
    files.get(Frames, paths[0]), files.get(Frames, paths[1])
    assert held["rgb"][3].max() == 2
    del held
    assert opened_names() & {path.name for path in paths} == {"held1.h5"}


def test_a_file_that_was_replaced_is_opened_anew(tmp_path):
    files, path = OpenFiles(), write_frames(tmp_path / "f.h5", value=1)
    assert files.get(Frames, path)["rgb"][0].max() == 1
    write_frames(path, value=2)
    assert files.get(Frames, path)["rgb"][0].max() == 2
    path.unlink()
    with pytest.raises(DataError, match=r"f\.h5"):
        files.get(Frames, path)
    assert len(files) == 0


def test_a_scene_refuses_a_file_that_was_replaced_while_in_use(tmp_path):
    scene = LazyFiles(write_frames(tmp_path / "f.h5", value=1))
    assert scene.frames["rgb"][0].max() == 1
    write_frames(tmp_path / "f.h5", value=1)  # equal content, another file
    assert scene.frames["rgb"][0].max() == 1
    write_frames(tmp_path / "f.h5", value=2)
    with pytest.raises(DataError, match=r"replaced while it was in use[\s\S]*f\.h5[\s\S]*scene: s"):
        scene.frames  # noqa: B018


def test_a_scene_refuses_a_file_of_other_frames(tmp_path):
    _, correspondences, _ = write_scene(tmp_path)
    scene = LazyFiles(write_frames(tmp_path / "other.h5", value=3))
    with pytest.raises(DataError, match="other frames"):
        scene.opened(Correspondences, correspondences)


def test_a_forked_process_opens_its_own_files(tmp_path):
    files, path = OpenFiles(), write_frames(tmp_path / "forked.h5", value=7)
    before = files.get(Frames, path)

    def child(queue):
        after = files.get(Frames, path)
        queue.put((after is not before, bool(before._file), int(after["rgb"][1].max())))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    found = queue.get(timeout=60)
    process.join(timeout=60)
    assert found == (True, False, 7)  # a fork closes inherited files
    assert before["rgb"][1].max() == 7  # the parent's file stays open


SCRIPT = f"""
import resource, sys
from pathlib import Path
import torch
from loco.evaluation.result import EvaluatedScene
from loco.training.data import Batches
from loco.training.scene_files import open_scenes
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
files = [[Path(path) for path in line.split()] for line in sys.stdin]
batch = {{"scenes": 8, "images_per_scene": 2, "min_overlap": 0.1, "min_baseline": 0.0, "patches_per_image": None}}
batches = Batches(open_scenes([paths[:2] for paths in files]), batch, None, seed=0)
seen = {{number for step in range(60) for number in batches.draw(step).scene.tolist()}}
loader = iter(torch.utils.data.DataLoader(batches, None, num_workers=2))
for step in range(4):
    assert torch.equal(next(loader).scene, batches.draw(step).scene)
scenes = [EvaluatedScene(*paths) for paths in files]
total = sum(float(scene.features["features"][0].sum()) for _ in range(2) for scene in scenes)
print(len(seen), len(scenes), total)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of descriptors")
def test_training_and_evaluation_of_many_scenes_need_few_descriptors(tmp_path):
    paths, lines = write_scene(tmp_path), []
    for k in range(COUNT):
        copies = [tmp_path / f"{path.stem}.{k}.h5" for path in paths]
        lines.append(" ".join(str(shutil.copy(*pair)) for pair in zip(paths, copies)))
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    seen, scenes, total = run.stdout.split()
    assert int(seen) > LIMIT
    assert (int(scenes), float(total)) == (COUNT, 2.0 * COUNT * 2 * 2 * 3 * 0.5)
