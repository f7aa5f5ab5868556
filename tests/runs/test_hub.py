"""hub: weights go to a repository and come back the same; whatever the hub answers is one clear line.

The hub is a small server of this process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save

import unscene
from unscene.cli.main import main
from unscene.errors import CheckpointError, ExtraError
from unscene.plain_yaml import to_yaml
from unscene.runs.hub import push
from unscene.runs.weights import checksum, read_weights


class FakeHub(ThreadingHTTPServer):
    """The parts of the hub that are used: files of a repository, creating one, and a commit."""

    daemon_threads = True

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.refuses = False
        self.downloads = 0
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        repository, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        files = self.server.repositories.get(repository)
        if files is None:
            self.answer(401, headers={"X-Error-Code": "RepoNotFound"})
        elif revision != "main":
            self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif name not in files:
            self.answer(404, headers={"X-Error-Code": "EntryNotFound"})
        else:
            etag = hashlib.sha256(files[name]).hexdigest()
            self.server.downloads += self.command == "GET"
            self.answer(200, files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": etag[:40]})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.server.refuses or self.headers["Authorization"] != "Bearer hf_test":
            self.answer(403, b'{"error": "You have no right to write."}')
        elif self.path == "/api/repos/create":
            name = "/".join(filter(None, (json.loads(text).get("organization"), json.loads(text)["name"])))
            self.server.repositories.setdefault(name, {})
            self.answer(
                200, json.dumps({"url": f"http://127.0.0.1:{self.server.server_port}/{name}", "id": name}).encode()
            )
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(text)["files"]]
            answers = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            self.answer(200, json.dumps({"files": answers}).encode())
        elif "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, text.splitlines()):
                if line["key"] == "file":
                    file = line["value"]
                    self.server.repositories[name][file["path"]] = base64.b64decode(file["content"])
            answer = {
                "commitUrl": f"http://127.0.0.1:{self.server.server_port}/{name}/commit/1",
                "commitOid": "1",
                "success": True,
            }
            self.answer(200, json.dumps(answer).encode())
        else:
            self.answer(200, b"{}")

    def answer(self, status: int, content: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *ignored: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[FakeHub]:
    """A hub without a repository, which `huggingface_hub` takes for the real one."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    server = FakeHub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache")}
    forget_settings(monkeypatch, **settings, HF_TOKEN="hf_test", HF_HUB_DISABLE_XET="1", NO_PROXY="127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def forget_settings(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Set variables that `huggingface_hub` reads when it is imported."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for module in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, module)


@pytest.fixture
def scored(trained, tmp_path) -> Path:
    """A run with an evaluation of its weights."""
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    unscene.evaluate(run, {"data.count": 2}, out=run / "report")
    return run


def test_pushed_weights_are_loaded_with_the_same_numbers(hub, scored, capsys):
    assert main(["push", str(scored), "somebody/sprites", "--license", "mit"]) == 0
    printed = capsys.readouterr().out
    assert "unscene decompose hf://somebody/sprites" in printed
    assert sorted(hub.repositories["somebody/sprites"]) == ["README.md", "recipe.yaml", "weights.safetensors"]
    loaded = unscene.load("hf://somebody/sprites")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.decompose(images).log_masks, unscene.load(scored).decompose(images).log_masks)
    assert loaded.name == "rmonet_unet/multi_dsprites_cpu"
    assert hub.downloads == 1
    hub.shutdown()
    assert unscene.load("hf://somebody/sprites").provenance == loaded.provenance, "the copy on this machine"


def test_the_card_holds_the_scores_in_the_fields_of_the_hub(hub, scored):
    push(scored, "hf://somebody/sprites", licence="mit")
    _, metadata, text = hub.repositories["somebody/sprites"]["README.md"].decode().split("---\n", 2)
    values = yaml.safe_load(metadata)
    assert (values["library_name"], values["license"]) == ("unscene", "mit")
    (index,) = values["model-index"]
    scores = json.loads((scored / "report" / "metrics.json").read_text())
    (result,) = index["results"]
    assert result["dataset"]["type"] == "multi_dsprites"
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert found["ari_fg"] == round(scores["ari_fg"], 4)
    assert "ms_per_image" not in found
    assert f"| ari_fg | {scores['ari_fg']:.4f} |" in text
    assert 'unscene.load("hf://somebody/sprites")' in text
    recipe = yaml.safe_load(hub.repositories["somebody/sprites"]["recipe.yaml"])
    assert recipe["name"] == "rmonet_unet/multi_dsprites_cpu"


def test_shipped_weights_bring_their_own_scores_and_no_licence(hub):
    push("rmonet_unet/multi_dsprites_cpu", "somebody/shipped")
    _, metadata, _ = hub.repositories["somebody/shipped"]["README.md"].decode().split("---\n", 2)
    values = yaml.safe_load(metadata)
    assert "license" not in values
    scores = unscene.load("rmonet_unet/multi_dsprites_cpu").provenance["scores"]
    (result,) = values["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]}["ari_fg"] == scores["ari_fg"]


def test_weights_without_an_evaluation_have_a_card_without_scores(hub, trained):
    push(trained.weights, "somebody/new")
    card = hub.repositories["somebody/new"]["README.md"].decode()
    assert "model-index" not in card
    assert "Not measured." in card


def test_a_report_of_other_weights_is_refused(hub, scored):
    with pytest.raises(CheckpointError, match=r"metrics\.json is of other weights"):
        push("rmonet_unet/multi_dsprites_cpu", "somebody/shipped", report=scored / "report")
    with pytest.raises(CheckpointError, match=r"metrics\.json is no evaluation"):
        push(scored, "somebody/shipped", report=scored)
    assert hub.repositories == {}


def test_a_report_of_another_number_of_slots_is_refused(hub, scored):
    path = scored / "report" / "metrics.json"
    report = json.loads(path.read_text())
    report["provenance"]["weights"]["num_slots"] = 12  # as `LoadedModel.with_slots` adds it
    path.write_text(json.dumps(report))
    with pytest.raises(CheckpointError, match="another number of slots"):
        push(scored, "somebody/new")


def test_the_card_names_no_folder_of_the_machine(hub, scored):
    path = scored / "report" / "metrics.json"
    report = json.loads(path.read_text())
    report["provenance"]["data"] |= {"source": "hdf5", "path": "/home/somebody/secret/scenes.h5"}
    path.write_text(json.dumps(report))
    push(scored, "somebody/new")
    card = hub.repositories["somebody/new"]["README.md"].decode()
    assert "path scenes.h5" in card
    assert "secret" not in card


def test_weights_and_recipe_name_no_folder_of_the_machine(hub, scored):
    path = scored / "weights.safetensors"
    weights, recipe, provenance = read_weights(path)
    del provenance["sha256"]
    data = "/home/some body/secret/scenes.h5"
    recipe["data"] = {"name": "hdf5", "path": data, "size": recipe["data"]["size"]}
    recipe["validation"] = recipe["test"] = {"count": 1}
    words = ["unscene", "train", "~/secret/my recipe.yaml", f"--data.path={data}", "--out", "runs/a"]
    provenance["starts"][0]["command"] = shlex.join(words)
    metadata = {"format": "unscene-1", "recipe": to_yaml(recipe), "provenance": json.dumps(provenance)}
    path.write_bytes(save(weights, metadata | {"checksum": checksum(weights, metadata)}))
    shutil.rmtree(scored / "report")
    push(path, "somebody/new")
    files = hub.repositories["somebody/new"]
    assert not any(word in content for content in files.values() for word in (b"secret", b"some body"))
    model = unscene.load("hf://somebody/new")
    assert model.config["data"]["path"] == "scenes.h5"
    command = "unscene train 'my recipe.yaml' --data.path=scenes.h5 --out runs/a"
    assert model.provenance["starts"][0]["command"] == command
    assert yaml.safe_load(files["recipe.yaml"])["data"]["path"] == "scenes.h5"


def test_a_checkpoint_is_not_published(hub, trained):
    with pytest.raises(CheckpointError, match=r"has no weights\.safetensors, which a training writes at its end"):
        push(trained.best, "somebody/new")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://somebody/missing", "is not on the hub, or is private"),
        ("hf://somebody/empty", "holds no weights.safetensors"),
        ("hf://somebody/empty@older", "has no such revision"),
        ("hf://a b/c/d", "is no name of a repository"),
        ("hf://", "is no name of a repository"),
        ("hf://name", "is no name of a repository. Write hf://USER/NAME"),
    ],
)
def test_a_wrong_name_is_one_clear_line(hub, name, message, capsys):
    hub.repositories["somebody/empty"] = {"model.py": b"raise SystemExit"}
    assert main(["decompose", name, "nothing.png", "--out", "nothing"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"CheckpointError: {name} {message}")


def test_weights_of_another_library_are_refused(hub):
    from safetensors.torch import save

    hub.repositories["somebody/other"] = {"weights.safetensors": save({"a": torch.zeros(2)})}
    with pytest.raises(CheckpointError, match="was not written by unscene"):
        unscene.load("hf://somebody/other")
    hub.repositories["somebody/pickle"] = {"weights.safetensors": b"cos\nsystem\n(S'false'\ntR."}
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        unscene.load("hf://somebody/pickle")


def test_without_a_connection_the_message_says_so(hub, monkeypatch, trained):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(CheckpointError, match=r"hf://a/b .*cannot be reached\. Check the connection"):
        unscene.load("hf://a/b")
    with pytest.raises(CheckpointError, match=r"hf://a/b cannot be reached on the hub\. Check the connection"):
        push(trained.path, "a/b")
    forget_settings(monkeypatch, HF_HUB_OFFLINE="1")
    with pytest.raises(CheckpointError, match=r"hf://a/b .*HF_HUB_OFFLINE"):
        unscene.load("hf://a/b")
    with pytest.raises(CheckpointError, match=r"hf://a/b cannot be reached, since HF_HUB_OFFLINE is set"):
        push(trained.path, "a/b")


def test_without_the_right_to_write_the_message_names_the_login(hub, trained):
    hub.refuses = True
    with pytest.raises(CheckpointError, match=r"hf://a/b was refused by the hub\. `hf auth login`"):
        push(trained.path, "a/b")


def test_a_missing_package_is_named_with_its_command(monkeypatch, trained):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: unscene.load("hf://a/b"), lambda: push(trained.path, "a/b")):
        with pytest.raises(ExtraError, match=r"huggingface_hub is not installed, .*'unscene\[hub\]'"):
            call()
