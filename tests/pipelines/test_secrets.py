"""What is secret in an address stays in the process that was given it: it is in no file, no output and no package."""

import base64
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from components.record.plan_parameter import Packed
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.store import open_store
from edm2core.store.results import load
from edm2core.store.uploaded_sources import is_stored
from pipelines.cli.compile import command as compile
from pipelines.cli.plan import command as plan_command
from pipelines.inputs.user_files import brought, resolve, upload
from pipelines.run.places import here
from pipelines.run.run_experiment import run

SECRETS = ("hunter2", "s3cr3t")  # the password, the token


class Guarded(BaseHTTPRequestHandler):
    """Gives its archive to who knows user, password and token."""

    archive = b""

    def do_GET(self) -> None:
        basic = base64.b64encode(f"user:{SECRETS[0]}/@".encode()).decode()
        known = self.headers["Authorization"] == f"Basic {basic}" and parse_qs(urlsplit(self.path).query) == {"token": [SECRETS[1]]}
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(self.archive) if known else 0))
        self.end_headers()
        self.wfile.write(self.archive if known else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture(autouse=True)
def _folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDM2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDM2_WORK", str(tmp_path / "work"))


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Path]:
    """An experiment on images behind a signed URL, which stands in the recipe, in the experiment and in a comment."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for part, name, shade in ((p, n, s) for p in ("train", "test") for n in ("cat", "dog") for s in range(2)):
            pixels = np.full((8, 8, 3), 90 * shade + 60 * (name == "cat"), np.uint8)
            pixels[0] = 0
            picture = io.BytesIO()
            Image.fromarray(pixels).save(picture, "png")
            archive.writestr(f"{part}/{name}/{shade}.png", picture.getvalue())
    handler = type("Handler", (Guarded,), {"archive": packed.getvalue()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    url = f"http://user:{SECRETS[0]}%2F%40@127.0.0.1:{server.server_address[1]}/pictures.zip?token={SECRETS[1]}"
    recipe = {
        "extends": "digits/C",
        "name": "mine/C",
        "data": {"format": "images", "source": url, "digest": f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}", "resolution": 8},
        "network": {"image_channels": 3},
    }
    (tmp_path / "given").mkdir()
    (tmp_path / "given/mine.yaml").write_text(yaml.safe_dump(recipe))
    escaped = url.replace("://", ":\\/\\/").replace("hunter2", "hunt\\x65r2")
    text = f'name: e\nrecipes: [mine.yaml]\nepochs: [1]\nmetrics: []\nprobe: false # as {url}\noverrides: {{data.source: "{escaped}"}}\n'
    (tmp_path / "given/e.yaml").write_text(text)
    yield tmp_path / "given/e.yaml"
    server.shutdown()
    thread.join()
    server.server_close()


def nowhere(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        for secret in SECRETS:
            assert secret.encode() not in path.read_bytes(), path
            assert secret not in str(path)


def test_a_run_here_reads_a_signed_url_and_writes_its_secrets_nowhere(experiment: Path, tmp_path: Path) -> None:
    printed = io.StringIO()
    done = run(load_experiment(experiment), here(str(tmp_path / "store"), jobs=1, processes=1), Console(file=printed))
    read = load_experiment(experiment)
    tasks = plan(read, resolve(read))
    assert all(load(done.store, task.ref) is not None for task in tasks)
    stored = yaml.safe_load(done.store.read(f"{done.folder}/experiment.yaml"))
    assert stored["overrides"]["data.source"].endswith("/pictures.zip")
    for folder in ("store", "cache"):
        nowhere(tmp_path / folder)
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]  # what processes left
    assert "downloading http://127.0.0.1:" in printed.getvalue()
    assert not any(secret in printed.getvalue() for secret in SECRETS)


def test_for_pods_the_source_is_uploaded_and_no_plan_or_package_holds_its_secrets(experiment: Path, tmp_path: Path) -> None:
    printed = CliRunner().invoke(plan_command, [str(experiment), "--json"], catch_exceptions=False).output
    CliRunner().invoke(compile, [str(experiment), "--cluster", "lab", "--out", str(tmp_path / "package/p.yaml")], catch_exceptions=False)
    package = (tmp_path / "package/p.yaml").read_text()
    words = re.findall(r"/Td6WFo[A-Za-z0-9+/=]{200,}", json.dumps(list(yaml.safe_load_all(package))))  # how what is packed begins
    packed = [json.dumps(asdict(Packed.loads(word))) for word in words]
    assert packed
    for text in (printed, package, *packed):
        assert "/pictures.zip" in text or text is package
        assert not any(secret in text for secret in SECRETS)
    read = load_experiment(experiment)
    [task] = brought(tasks := plan(read, resolve(read)))
    store, said = open_store(str(tmp_path / "store")), []
    upload(tasks, store, said.append)
    assert is_stored(store, task.settings["digest"])
    assert said == [f"uploading {json.loads(printed.splitlines()[0])['settings']['source']} to {store.uri}"]


def test_a_source_of_a_signed_url_has_the_keys_of_the_bare_one(experiment: Path) -> None:
    read = load_experiment(experiment)
    keys = [task.key for task in plan(read, resolve(read))]
    recipe = experiment.parent / "mine.yaml"
    bare = read.recipes[0].data.source.partition("?")[0]
    experiment.write_text(f"name: e\nrecipes: [mine.yaml]\nepochs: [1]\nmetrics: []\nprobe: false\noverrides: {{data.source: '{bare}'}}\n")
    assert recipe.exists()
    assert os.environ["EDM2_CACHE"]
    read = load_experiment(experiment)
    assert [task.key for task in plan(read, resolve(read))] == keys
