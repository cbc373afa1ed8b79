"""The command line, in process: it writes the expected files, and reports a mistake of the user in one line."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open

import loco
from loco.cli import main
from loco.evaluation.result import Evaluation, Row
from loco.models import build_extractor, save_extractor
from loco.results.metrics import write_metrics

COMPACT = {"name": "compact_cnn", "dim": 8, "widths": [8, 8, 8], "blocks": 1}
SIZE = (34, 50)  # not a multiple of the patch size


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "results" / "model.safetensors"
    save_extractor(build_extractor(COMPACT, 1), COMPACT, path, {"seed": 3})
    return str(path)


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Two photographs of one texture, the second shifted by 8 pixels to the left."""
    noise = np.random.default_rng([4]).integers(0, 255, (SIZE[0], SIZE[1] + 8, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 1.5)
    paths = [str(tmp_path / f"{name}.png") for name in "ab"]
    for path, left in zip(paths, (0, 8)):
        cv2.imwrite(path, texture[:, left : left + SIZE[1]])
    return paths


def _rgb(path: str) -> np.ndarray:
    return cv2.imread(path)[..., ::-1]


def _fails(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str]:
    status = main([str(argument) for argument in arguments])
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith(f"loco {arguments[0]}: ")
    return status, message


def test_extract_writes_the_features_of_each_image(model: str, photos: list[str], tmp_path: Path) -> None:
    assert main(["extract", *photos, "--model", model, "--out", str(tmp_path / "out"), "--pca"]) == 0
    extractor = loco.load(model)
    for path in photos:
        stem = Path(path).stem
        features = np.load(tmp_path / "out" / f"{stem}.npy")
        assert (features.dtype, features.shape) == (np.float16, (9, 13, 8))
        expected = extractor.extract(_rgb(path))[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(features, expected, atol=1e-3)
        assert cv2.imread(str(tmp_path / "out" / f"{stem}_pca.png")).shape == (*SIZE, 3)
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_features_are_upsampled_on_request(
    model: str, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    finer = ["--model", model, "--upsample", "joint_bilateral:2"]
    assert main(["extract", photos[0], *finer, "--out", str(tmp_path)]) == 0
    expected = loco.load(model, upsample={"name": "joint_bilateral", "stride": 2}).extract(_rgb(photos[0]))[0]
    assert expected.shape == (8, 17, 25)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected.permute(1, 2, 0), atol=1e-3)
    assert main(["match", *photos, *finer, "--out", str(tmp_path / "m.png"), "--matches", str(tmp_path / "m.csv")]) == 0
    matches = pd.read_csv(tmp_path / "m.csv")
    assert len(matches)
    assert (matches[["u_a", "v_a"]] % 2 == 1).all(axis=None)  # the centres of cells of 2 x 2 pixels
    assert main(["export", model, "--upsample", "bilinear:1", "--pretrained", str(tmp_path / "published")]) == 0
    assert loco.load(tmp_path / "published").stride == 1
    capsys.readouterr()  # progress bars
    status, message = _fails(capsys, "extract", photos[0], "--model", model, "--upsample", "bilinear:4", "--out", "x")
    assert "less than the stride of the model, 4 pixels" in message
    assert status == 2


@pytest.mark.parametrize("below", ["", "/deeper"])
@pytest.mark.parametrize(
    "command",
    [
        ["extract", "IMAGES", "--model", "resnet51", "--out", "FILE"],
        ["extract", "IMAGES", "--model", "resnet51", "--format", "hloc", "--out", "FILE"],
        ["match", "IMAGES", "--model", "resnet51", "--format", "hloc", "--out", "FILE"],
        ["export", "resnet51", "--pretrained", "FILE"],
    ],
)
def test_an_output_folder_that_is_a_file_is_refused_before_the_model_is_loaded(
    command: list[str], below: str, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "afile.txt"
    file.touch()
    words = [found for word in command for found in (photos if word == "IMAGES" else [word])]
    status, message = _fails(capsys, *(f"{file}{below}" if word == "FILE" else word for word in words))
    assert f"expects a folder, and {file} is a file" in message
    assert status == 2


def test_the_pictures_share_their_colours(model: str, photos: list[str], tmp_path: Path) -> None:
    """Features are the same in both images, so a location that both images show has the same colour in both."""
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(photos[0]).read_bytes())
    assert main(["extract", *photos, str(copy), "--model", model, "--out", str(tmp_path), "--pca"]) == 0
    a, b, twin = (cv2.imread(str(tmp_path / f"{stem}_pca.png")).astype(int) for stem in ("a", "b", "copy"))
    assert (a == twin).all()
    assert (a != b).any()


def test_extract_says_what_the_grid_covers(model: str, photos: list[str], tmp_path: Path) -> None:
    """Positions are in pixels of the photograph, also if it was scaled down."""
    options = ["--model", model, "--out", str(tmp_path / "out"), "--format", "safetensors", "--max-size", "25"]
    assert main(["extract", photos[0], *options]) == 0
    with safe_open(tmp_path / "out" / "a.safetensors", framework="np") as file:
        assert file.get_tensor("features").shape == (5, 7, 8)  # of 17 x 25 pixels
        assert json.loads(file.metadata()["extent"]) == [5 * 4 * 2, 7 * 4 * 2]


def test_match_draws_and_lists_correspondences(
    model: str, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, listed = tmp_path / "match.png", tmp_path / "match.csv"
    assert main(["match", *photos, "--model", model, "--out", str(out), "--matches", str(listed), "--count", "40"]) == 0
    table = pd.read_csv(listed)
    assert capsys.readouterr().out == f"{len(table)} matches written to {out}\n"
    assert cv2.imread(str(out)) is not None
    inner = table[table["u_a"].between(16, 42) & table["v_a"].between(8, 26)]
    assert len(inner) > 5
    moved = inner["u_b"] - inner["u_a"], inner["v_b"] - inner["v_a"]
    assert np.median(moved[0]) == pytest.approx(-8, abs=1)
    assert np.median(moved[1]) == pytest.approx(0, abs=1)


def test_matches_of_scaled_photographs_are_in_pixels_of_the_files(
    model: str, photos: list[str], tmp_path: Path
) -> None:
    large = str(tmp_path / "large.png")
    cv2.imwrite(large, cv2.resize(cv2.imread(photos[0]), (2 * SIZE[1], 2 * SIZE[0]), interpolation=cv2.INTER_NEAREST))
    listed = tmp_path / "match.csv"
    options = ["--model", model, "--out", str(tmp_path / "m.png"), "--matches", str(listed), "--max-size", "50"]
    assert main(["match", large, photos[0], *options]) == 0
    table = pd.read_csv(listed)
    np.testing.assert_array_equal(table["u_a"], 2 * table["u_b"])
    np.testing.assert_array_equal(table["v_a"], 2 * table["v_b"])
    assert table["u_a"].max() > SIZE[1]


def test_models_lists_what_is_known_and_what_is_there(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, files in (("dinov2-base", ("config.json", "model.safetensors")), ("dinov2-small", ("config.json",))):
        for file in (f"snapshots/{40 * '0'}/{file}" for file in files):
            (tmp_path / f"hub/models--facebook--{name}" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"hub/models--facebook--{name}" / file).touch()
        (tmp_path / f"hub/models--facebook--{name}/refs").mkdir()
        (tmp_path / f"hub/models--facebook--{name}/refs/main").write_text(40 * "0")
    broken = tmp_path / "results" / "broken.safetensors"
    broken.write_bytes(b"broken")
    assert main(["models", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert ["dinov2_vitb14", "14", "768", "Apache-2.0", "facebook/dinov2-base", "yes"] in lines
    assert ["tipsv2_vitg14", "14", "1536", "Apache-2.0", "google/tipsv2-g14", "no"] in lines
    assert ["dinov2_vits14", "14", "384", "Apache-2.0", "facebook/dinov2-small", "no"] in lines  # no weights
    assert ["sam_vision_model", "sam", "block", "yes", "no", "no", "fixed"] in lines
    assert [model, "compact_cnn"] in [line[:2] for line in lines]
    assert str(broken) in printed.err
    assert str(broken) not in printed.out
    (tmp_path / "empty").mkdir()
    assert main(["models", str(tmp_path / "empty")]) == 0
    assert f"{tmp_path / 'empty'}/ contains no model files" in capsys.readouterr().out
    assert main(["models", str(tmp_path / "none")]) == 0
    assert f"the folder {tmp_path / 'none'} does not exist" in capsys.readouterr().out


def test_info_says_how_a_model_was_made(model: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["info", model, "--all"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"] == COMPACT
    assert said["facts"] == {"seed": 3}
    parameters = sum(p.numel() for p in build_extractor(COMPACT).parameters())
    assert said["sizes"].items() >= {"dim": 8, "stride": 4, "parameters": parameters}.items()
    assert main(["info", model]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.pop("--all").endswith("as JSON")
    assert lines == {
        "model": "compact_cnn",
        "features": "8 channels, one vector per 4 x 4 pixels",
        "parameters": f"{parameters:,}, of which {parameters:,} are trainable",
        "seed": "3",
    }


def test_info_states_the_losses_and_the_training_data(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def described(**facts: object) -> dict[str, str]:
        save_extractor(build_extractor(COMPACT, 1), COMPACT, tmp_path / "model.safetensors", facts)
        assert main(["info", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line[:12].strip(): line[12:] for line in lines if line[:12].strip() in ("loss", "trained on")}

    short, long = {"loss": {"name": "info_nce"}, "steps": 10}, {"loss": {"name": "exact"}, "steps": 40}
    data = {"train": {"houses": ["a", "b"], "office": ["c"]}, "val": {}}
    assert described(phases=[long], data=data) == {"loss": "exact", "trained on": "houses (2 scenes), office (1 scene)"}
    assert described(phases=[short, long]) == {"loss": "info_nce (10 steps), then exact (40 steps)"}
    assert described(phases="all", data=["houses"]) == {}  # facts that are not those of a training step


def test_a_closed_output_ends_a_command_quietly(model: str, tmp_path: Path) -> None:
    """As with ``loco info MODEL --all | head``."""
    for arguments in (["info", model, "--all"], ["clean", str(tmp_path)], ["models", str(tmp_path)], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-c", "from loco.cli import main; raise SystemExit(main())", *arguments]
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered)
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, "")


def test_export_writes_both_forms(model: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    metrics = tmp_path / "seed3.json"
    run = {"benchmark": "location_consistency", "split": "houses", "experiment": "exact", "seed": 3}
    write_metrics(metrics, **run, settings={}, evaluation=Evaluation([Row("mAP", "2 m", 0.5, None, None, 1)], {}))
    onnx, folder = tmp_path / "model.onnx", tmp_path / "public"
    where = ["--onnx", str(onnx), "--size", "16", "24", "--pretrained", str(folder), "--metrics", str(metrics)]
    assert main(["export", model, *where]) == 0
    assert "maximum difference from the features of PyTorch" in capsys.readouterr().out
    images = np.random.default_rng([5]).integers(0, 255, (2, 16, 24, 3), np.uint8)
    expected = loco.load(folder).extract(images)
    assert torch.equal(expected, loco.load(model).extract(images))
    inputs = {"images": images.transpose(0, 3, 1, 2).astype(np.float32) / 255}
    np.testing.assert_allclose(onnxruntime.InferenceSession(onnx).run(None, inputs)[0], expected, atol=1e-5)
    assert "| mAP | 50.0 |" in (folder / "README.md").read_text()


def test_broken_images_are_named(model: str, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    text, empty, bomb = tmp_path / "text.jpg", tmp_path / "empty.jpg", tmp_path / "bomb.png"
    text.write_text("no image")
    empty.touch()
    bomb.write_bytes(_png_of_claimed_size(100_000))
    for path in (text, empty, bomb, tmp_path / "missing.jpg"):
        for command in (["extract", photos[0], path, "--out", tmp_path], ["match", photos[0], path, "--out", "m.png"]):
            status, message = _fails_after_progress(capsys, *command, "--model", model)
            assert status == 1
            assert str(path) in message


def _fails_after_progress(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str]:
    """As :func:`_fails`, for a command that shows its progress first."""
    status = main([str(argument) for argument in arguments])
    lines = capsys.readouterr().err.splitlines()
    (message,) = (line for line in lines if line.startswith(f"loco {arguments[0]}: "))
    assert not any("Traceback" in line for line in lines)
    return status, message


def _png_of_claimed_size(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_the_whole_images_are_extracted_beside_broken_ones(
    model: str, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    images = [photos[0], tmp_path / "text.jpg", photos[1]]
    status, message = _fails_after_progress(
        capsys, "extract", *images, "--model", model, "--out", tmp_path / "out", "--pca"
    )
    assert status == 1
    assert "1 of 3 images could not be processed" in message
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"a.npy", "b.npy", "a_pca.png", "b_pca.png"}


def test_no_success_is_reported_if_no_image_was_extracted(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    assert main(["extract", str(tmp_path / "text.jpg"), "--model", model, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "1 of 1 images could not be processed" in printed.err


def test_features_that_are_not_finite_are_refused(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    broken = build_extractor(COMPACT, 1)
    broken.encoder.head.weight.data.fill_(3e38)  # finite, but their products are not
    save_extractor(broken, COMPACT, tmp_path / "broken.safetensors")
    for command in (
        ["extract", *photos, "--out", tmp_path / "o"],
        ["match", *photos, "--out", tmp_path / "m.png"],
        ["explore", "--images", *photos, "--out", tmp_path / "p.html"],
    ):
        status, message = _fails_after_progress(capsys, *command, "--model", tmp_path / "broken.safetensors")
        assert status == 1
        assert "not finite" in message
        assert "a.png" in message
    assert not any((tmp_path / name).exists() for name in ("o", "m.png", "p.html"))


@pytest.mark.parametrize(
    ("command", "refused"),
    [
        ("match --format png --pairs retrieval", "--pairs has no effect with --format png"),
        ("match --format png --neighbours 5", "--neighbours has no effect with --format png"),
        ("match --format png --several-cameras", "--several-cameras has no effect with --format png"),
        ("match --format png --keypoints sift", "--keypoints has no effect with --format png"),
        ("match --format hloc --count 5", "--count has no effect with --format hloc"),
        ("match --format hloc --matches m.csv", "--matches has no effect with --format hloc"),
        ("match --format hloc --several-cameras", "--several-cameras has no effect with --format hloc"),
        ("match --format colmap --count 5", "--count has no effect with --format colmap"),
        ("match --format colmap --neighbours 5", "--neighbours has no effect with --pairs exhaustive"),
        ("match --format hloc --max-keypoints 5", "--max-keypoints has no effect with --keypoints patches"),
        ("extract --format npy --keypoints sift", "--keypoints has no effect with --format npy"),
        ("extract --format safetensors --max-keypoints 5", "--max-keypoints has no effect with --format safetensors"),
        ("extract --format hloc --pca", "--pca has no effect with --format hloc"),
    ],
)
def test_options_without_effect_are_refused(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, command: str, refused: str
) -> None:
    name, *options = command.split()
    status, message = _fails(capsys, name, *photos, "--model", "m", "--out", tmp_path / "out.png", *options)
    assert (status, message) == (2, f"loco {name}: {refused}: remove it\n")
    assert not (tmp_path / "out.png").exists()


def test_the_version_is_told(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"loco {loco.__version__}\n"


def test_mistakes_of_users_are_one_line(
    model: str, photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = ["--out", tmp_path / "out"]
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "a.jpg"
    cases = [
        (1, "the model 'resnet51' does not exist", ["extract", photos[0], "--model", "resnet51", *out]),
        (1, "not a model of this project", ["info", photos[0] + ".safetensors"]),
        (2, f"{twin} would be written to the same file", ["extract", photos[0], twin, "--model", model, *out]),
        (2, "must end in .png", ["match", *photos, "--model", model, "--out", tmp_path / "m.jpg"]),
        (2, "would be overwritten", ["match", *photos, "--model", model, "--out", photos[0]]),
        (
            2,
            "would be overwritten",
            ["match", *photos, "--model", model, "--out", tmp_path / "m.png", "--matches", photos[1]],
        ),
        (2, "requires no backbone", ["extract", photos[0], "--model", model, "--backbone", tmp_path, *out]),
        (2, "requires --pretrained", ["export", model, "--with-backbone", "--onnx", tmp_path / "m.onnx"]),
        (2, "--onnx FILE, --pretrained DIR", ["export", model]),
        (2, "pass --size", ["export", model, "--onnx", tmp_path / "m.onnx"]),
        (1, "seed4.json", ["export", model, "--pretrained", tmp_path / "p", "--metrics", tmp_path / "seed4.json"]),
        (1, "model.safetensors", ["match", *photos, "--model", model, "--out", Path(model) / "m.png"]),
    ]
    with open(photos[0] + ".safetensors", "wb") as file:  # a safetensors file of another program
        header = b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
        file.write(struct.pack("<Q", len(header)) + header + b"\0")
    for status, says, arguments in cases:
        found, message = _fails(capsys, *arguments)
        assert found == status, message
        assert says in message
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("arguments", [[], ["fly"], ["match", "a", "b", "--model", "m", "--out", "o", "--count", "0"]])
def test_commands_that_are_none_are_refused(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: loco" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "says"), [("extrac", "did you mean `extract`?"), ("fly", "known: init, extract")])
def test_a_misspelt_command_is_answered_with_the_known_ones(
    word: str, says: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main([word, "a.jpg"])
    assert f"unknown command '{word}'; {says}" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "formats"), [("extract", "hloc"), ("match", "hloc or colmap")])
def test_the_help_names_the_formats_with_keypoints(command: str, formats: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"keypoints, with --format {formats}: patches" in " ".join(capsys.readouterr().out.split())
