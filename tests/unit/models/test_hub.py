"""Models on the Hugging Face hub: a round trip through a local server with the hub's API, in processes of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loco
from loco.errors import ConfigError
from loco.models import build_extractor, save_extractor
from loco.models.hub import upload_folder

COMPACT = {"name": "compact_cnn", "dim": 8, "widths": [8, 8, 8], "blocks": 1}
COMMIT = "0" * 40
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's API that uploads and downloads of small files use."""

    repositories: dict[str, dict[str, bytes]]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            settings = json.loads(content)
            name = f"{settings.get('organization', 'me')}/{settings['name']}"
            self.repositories.setdefault(name, {})
            self._answer({"url": f"http://{self.headers['Host']}/{name}", "id": name})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(content)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    self.repositories[match[1]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            address = f"http://{self.headers['Host']}/{match[1]}/commit/{COMMIT}"
            self._answer({"commitUrl": address, "commitOid": COMMIT})
        else:
            self._answer({"error": path}, 404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if (match := re.fullmatch(r"/api/models/(.+)/revision/main", path)) and match[1] in self.repositories:
            siblings = [{"rfilename": name} for name in self.repositories[match[1]]]
            self._answer({"id": match[1], "sha": COMMIT, "siblings": siblings, "private": False})
        elif match := re.fullmatch(r"/api/models/(.+)/tree/[^/]+", path):
            files = self.repositories[match[1]].items()
            self._answer([{"type": "file", "path": p, "size": len(data), "oid": COMMIT} for p, data in files])
        elif match := re.fullmatch(r"/(.+?/.+?)/resolve/[^/]+/(.+)", path):
            data = self.repositories[match[1]][match[2]]
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)
        else:
            self._answer({"error": path}, 404)

    do_HEAD = do_GET

    def _answer(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, dict[str, bytes]]]]:
    """The address of a server, and its repositories: name -> path -> content."""
    repositories: dict[str, dict[str, bytes]] = {}
    handler = type("Handler", (Hub,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", repositories
    server.shutdown()
    server.server_close()


def run(code: str, folder: Path, address: str, **settings: str) -> str:
    """Run Python code in a new process whose hub is the server, and whose cache is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(folder / "cache"), "HF_TOKEN": "hf_token"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **settings}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_comes_back_from_the_hub_without_its_training_folder(tmp_path, hub):
    address, repositories = hub
    extractor = build_extractor(COMPACT, seed=3)
    weights = tmp_path / "training/model.safetensors"
    save_extractor(extractor, COMPACT, weights, {"seed": 3})
    command = ["export", str(weights), "--push", "me/my-features"]
    said = run(f"from loco.cli import main; raise SystemExit(main({command}))", tmp_path / "here", address)
    assert said == f"published {address}/me/my-features\n"
    assert sorted(repositories["me/my-features"]) == ["README.md", "model.safetensors"]  # no code
    weights.unlink()

    card = repositories["me/my-features"]["README.md"].decode()
    assert "# me/my-features" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].split("  # ")[0]  # the example of the card
    assert 'loco.load("hub:me/my-features")' in code
    images = "import numpy as np\nimages = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)\n"
    stored = f"{images}{code}\nnp.save('features.npy', features.numpy())\nprint(model.facts['seed'])"
    assert run(stored, tmp_path / "there", address) == "3\n"
    expected = extractor.eval().extract(IMAGE)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "there/features.npy")), expected)

    # Once downloaded, the model needs no network.
    run(stored, tmp_path / "there", "http://127.0.0.1:9", HF_HUB_OFFLINE="1")


COMMAND = """
import contextlib, io
from loco.cli import main

errors = io.StringIO()
with contextlib.redirect_stderr(errors):
    status = main({arguments})
print(status, errors.getvalue())
"""


def test_a_repository_that_does_not_exist_is_one_message(tmp_path, hub):
    address, _ = hub
    said = run(COMMAND.format(arguments=["info", "hub:me/nothing"]), tmp_path, address)
    assert said.startswith("1 loco info: ")
    assert "'me/nothing' is not in the cache of the Hugging Face hub and cannot be downloaded" in said


def test_a_refused_upload_is_one_message(tmp_path):
    save_extractor(build_extractor(COMPACT), COMPACT, tmp_path / "model.safetensors", {})
    arguments = ["export", str(tmp_path / "model.safetensors"), "--push", "me/my-features"]
    said = run(COMMAND.format(arguments=arguments), tmp_path, "http://127.0.0.1:9")  # nobody listens
    assert said.startswith("1 loco export: ")
    assert "cannot be uploaded to 'me/my-features'" in said
    assert "hf auth login" in said


@pytest.mark.parametrize("name", ["features", "me/my features", "me/a/b", "../x"])
def test_invalid_names_are_refused_before_anything_is_sent(tmp_path, name):
    with pytest.raises(ConfigError, match="expected the name of a repository on the hub, owner/name"):
        upload_folder(tmp_path, name)


def test_the_package_offers_publishing():
    assert callable(loco.push_to_hub)
