"""Weights: verified when loaded, whole when saved, and exchanged with a hub that runs here."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spikeinterface_simsort.cli_weights import add_weights_parser
from spikeinterface_simsort.models import build_detector, build_embedder
from spikeinterface_simsort.weights import (
    WeightsError,
    describe_weights,
    load_weights,
    pull_weights,
    push_weights,
    resolve_weights,
    save_weights,
)

REPO_ID = "someone/simsort-tiny"
FILES = ("README.md", "config.json", "detector.safetensors", "embedder.safetensors")
CARD = "---\nlicense: bsd-3-clause\n---\n\n# Tiny weights\n\nFor tests.\n"
CONFIG = {
    "name": "simsort-tiny",
    "detector": {
        "architecture": "patch_transformer",
        "sampling_frequency": 20000.0,
        "threshold": 0.5,
        "freq_min": 300.0,
        "kwargs": {"width": 16, "num_layers": 1, "num_heads": 2, "stem_channels": 4, "window_samples": 64},
    },
    "embedder": {
        "architecture": "gru",
        "sampling_frequency": 20000.0,
        "ms_before": 0.8,
        "ms_after": 1.6,
        "kwargs": {"num_samples": 48, "hidden_size": 8, "svd_rank": 5},
    },
}


def make_networks(config: dict[str, Any] = CONFIG) -> dict[str, Any]:
    return {
        role: build(architecture=config[role]["architecture"], **config[role]["kwargs"])
        for role, build in (("detector", build_detector), ("embedder", build_embedder))
    }


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def seal(folder: Path) -> None:
    """Make the sha256 agree with the files, as someone would who publishes bad weights in good order."""
    for name in ("detector.safetensors", "embedder.safetensors"):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        edit_config(folder, lambda config, name=name, digest=digest: config["sha256"].update({name: digest}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "weights", **make_networks(), config=CONFIG, card=CARD)


# Saving and loading


def test_round_trip(tmp_path: Path) -> None:
    networks = make_networks()
    with torch.no_grad():
        networks["embedder"].svd_basis += 0.1
    folder = save_weights(tmp_path / "deeper" / "weights", **networks, config=CONFIG, card=CARD)
    loaded = load_weights(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]
    # The card ends with what the other files are known by.
    files = [
        f"| {name} | {loaded.config['sha256'][name]} |" for name in ("detector.safetensors", "embedder.safetensors")
    ]
    ending = "\n".join(["", "## Files", "| | sha256 |", "| --- | --- |", *files, ""])
    assert (folder / "README.md").read_text() == CARD + ending
    assert loaded.source == str(folder) and loaded.folder == folder
    assert loaded.config["format_version"] == 1
    assert loaded.config["detector"] == CONFIG["detector"] and loaded.config["embedder"] == CONFIG["embedder"]
    traces, waveforms = torch.randn(2, 64, 4), torch.randn(3, 48, 4)
    for network, role, data in ((loaded.detector, "detector", traces), (loaded.embedder, "embedder", waveforms)):
        assert not network.training
        assert all(torch.equal(value, networks[role].state_dict()[key]) for key, value in network.state_dict().items())
        assert torch.equal(network(data), networks[role].eval()(data))


def test_paper_preset_round_trip(tmp_path: Path) -> None:
    detector = {
        "architecture": "sample_transformer",
        "sampling_frequency": 10000,
        "threshold": 0.97,
        "kwargs": {"width": 16, "num_layers": 1, "num_heads": 2, "window_samples": 64},
    }
    config = {**CONFIG, "detector": detector}
    folder = save_weights(tmp_path / "weights", **make_networks(config), config=config, card=CARD)
    assert load_weights(str(folder)).detector(torch.zeros(1, 64, 4)).shape == (1, 64)


def test_networks_that_share_memory_are_saved(tmp_path: Path) -> None:
    networks = make_networks()
    networks["embedder"].svd_basis = torch.eye(48)[:, :5].T  # Not contiguous.
    networks["embedder"].gru.bias_hh_l0 = networks["embedder"].gru.bias_ih_l0
    folder = save_weights(tmp_path / "weights", **networks, config=CONFIG, card=CARD)
    assert torch.equal(load_weights(folder).embedder.state_dict()["svd_basis"], torch.eye(48)[:5])


def test_loading_leaves_random_numbers_alone(folder: Path) -> None:
    state = torch.random.get_rng_state()
    load_weights(folder)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_existing_weights_are_replaced_only_on_request(folder: Path) -> None:
    before = read_files(folder)
    with pytest.raises(WeightsError, match="exists: pass overwrite=True"):
        save_weights(folder, **make_networks(), config=CONFIG, card=CARD)
    assert read_files(folder) == before
    save_weights(folder, **make_networks(), config=CONFIG, card=CARD, overwrite=True)
    assert read_files(folder)["detector.safetensors"] != before["detector.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]


def test_other_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "recording.raw").write_bytes(b"precious")
    with pytest.raises(WeightsError, match="not a weights folder"):
        save_weights(tmp_path / "data", **make_networks(), config=CONFIG, card=CARD, overwrite=True)
    with pytest.raises(WeightsError, match="not a weights folder"):
        save_weights(tmp_path / "data" / "recording.raw", **make_networks(), config=CONFIG, card=CARD, overwrite=True)
    assert read_files(tmp_path / "data") == {"recording.raw": b"precious"}


def fail_while_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def write_text(path: Path, *args: Any, **kwargs: Any) -> int:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)


def fail_while_swapping(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def rename_unless_new(path: Path, target: Path) -> Path:
        if path.name.endswith("-new"):
            raise OSError("No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_unless_new)


@pytest.mark.parametrize("fail", [fail_while_writing, fail_while_swapping])
def test_failure_leaves_old_weights_and_nothing_else(folder: Path, fail: Callable[..., None]) -> None:
    before = read_files(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        fail(monkeypatch)
        with pytest.raises(OSError, match="No space left"):
            save_weights(folder, **make_networks(), config=CONFIG, card=CARD, overwrite=True)
        with pytest.raises(OSError, match="No space left"):
            save_weights(folder.with_name("fresh"), **make_networks(), config=CONFIG, card=CARD)
    assert read_files(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]


def test_networks_that_the_config_does_not_describe_are_not_saved(tmp_path: Path) -> None:
    other = {**CONFIG, "embedder": {**CONFIG["embedder"], "kwargs": {"num_samples": 48, "hidden_size": 16}}}
    with pytest.raises(WeightsError, match=r"Nothing was saved.*embedder\.safetensors does not fit"):
        save_weights(tmp_path / "weights", **make_networks(), config=other, card=CARD)
    assert not list(tmp_path.iterdir())


# Weights that are not as they should be


def assert_refused(folder: Path, match: str) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        load_weights(folder)
    assert "simsort weights pull" in str(caught.value), "The message must say what to do."


def test_changed_file_is_refused_before_it_is_deserialised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "detector.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr("safetensors.torch.load", lambda _: pytest.fail("deserialised"))
    assert_refused(folder, r"detector\.safetensors is corrupted: its sha256")


def test_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "embedder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(folder, r"embedder\.safetensors is corrupted: its sha256")


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, b"\x80\x04K\x01."], ids=["empty", "noise", "pickle"])
def test_other_formats_are_refused(folder: Path, data: bytes) -> None:
    (folder / "detector.safetensors").write_bytes(data)
    seal(folder)
    assert_refused(folder, r"detector\.safetensors does not fit .*Safetensor")


@pytest.mark.parametrize("name", ["config.json", "detector.safetensors", "embedder.safetensors"])
def test_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert_refused(folder, re.escape(f"{name} is missing"))
    (folder / name).mkdir()
    assert_refused(folder, re.escape(f"{name} cannot be read"))


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "There is no weights folder")
    with pytest.raises(WeightsError, match="There is no weights folder"):
        load_weights("https://example.org/weights")


def test_missing_bundled_weights_advise_to_reinstall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeinterface_simsort.weights._BUNDLED_FOLDER", tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"Reinstall the package: pip install .*spikeinterface-simsort"):
        load_weights()


def test_card_is_not_needed_to_load(folder: Path) -> None:
    (folder / "README.md").unlink()
    load_weights(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit_config(folder, lambda config: config["detector"]["kwargs"].update(width=32))
    assert_refused(folder, r"detector\.safetensors does not fit the detector of config\.json: .*size mismatch")


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    (folder / "embedder.safetensors").write_bytes((folder / "detector.safetensors").read_bytes())
    seal(folder)
    assert_refused(folder, r"embedder\.safetensors does not fit the embedder of config\.json: .*Missing key")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    path = folder / "detector.safetensors"
    tensors = load_file(path)
    tensors["head.bias"][3] = value
    save_file(tensors, path)
    seal(folder)
    assert_refused(folder, r"detector\.safetensors holds values that are not finite, in head\.bias")


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda config: config.clear(), "has format_version None"),
        (lambda config: config.update(format_version=2), "newer weights need a newer package"),
        (lambda config: config.pop("name"), "has no name"),
        (lambda config: config.pop("embedder"), "does not describe the embedder"),
        (lambda config: config["detector"].pop("architecture"), "names no architecture of the detector"),
        (lambda config: config["detector"].update(architecture="oracle"), "Unknown detector architecture 'oracle'"),
        (lambda config: config["embedder"].update(architecture="oracle"), "Unknown embedder architecture 'oracle'"),
        (lambda config: config["detector"].update(kwargs=[]), "has no kwargs of the detector"),
        (lambda config: config["detector"]["kwargs"].update(colour=1), "detector .* cannot be built: .*colour"),
        (lambda config: config["detector"]["kwargs"].update(num_heads=3), "detector .* cannot be built"),
        (lambda config: config["detector"]["kwargs"].update(patch_samples=0), "detector .* cannot be built"),
        (lambda config: config["detector"]["kwargs"].update(width="wide"), "detector .* cannot be built"),
        (lambda config: config["detector"].update(sampling_frequency="20 kHz"), "no positive sampling_frequency of"),
        (lambda config: config["embedder"].update(sampling_frequency=True), "no positive sampling_frequency of"),
        (lambda config: config["embedder"].update(ms_before=float("nan")), "no positive ms_before of the embedder"),
        (lambda config: config["embedder"].update(ms_after=-1), "no positive ms_after of the embedder"),
        (lambda config: config["embedder"].update(ms_after=2.0), "describes waveforms of 56 samples"),
        (lambda config: config.update(sha256=None), "lacks the sha256 of a file"),
        (lambda config: config["sha256"].pop("embedder.safetensors"), "lacks the sha256 of a file"),
    ],
)
def test_bad_config_is_refused(folder: Path, edit: Callable[[dict[str, Any]], Any], complaint: str) -> None:
    edit_config(folder, edit)
    assert_refused(folder, complaint)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_config_that_is_not_a_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert_refused(folder, "config.json is not")


@pytest.mark.parametrize(
    "address",
    [
        f"hf://{REPO_ID}{revision}"
        for revision in ("", "@", "@main", "@master", "@HEAD", "@refs/pr/1", "@v1 ", "@../v1")
    ],
)
def test_unpinned_addresses_are_refused(address: str) -> None:
    with pytest.raises(WeightsError, match=rf"pin a revision, as in hf://{REPO_ID}@<commit or tag>"):
        resolve_weights(address)


@pytest.mark.parametrize("address", ["hf://", "hf://name@v1", "hf://a/b/c@v1", "hf://../b@v1", "hf://a b/c@v1"])
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(WeightsError, match="write it as hf://owner/name@revision"):
        resolve_weights(address)


# Bundled weights


def test_bundled_weights() -> None:
    loaded = load_weights()
    assert sum(path.stat().st_size for path in loaded.folder.iterdir()) < 20e6
    assert (loaded.folder / "README.md").read_text(encoding="utf-8").startswith("---\n")
    detector, embedder = loaded.detector, loaded.embedder
    with torch.no_grad():
        logits = detector(torch.randn(2, detector.window_samples, detector.num_channels))
        embedding = embedder(torch.randn(3, embedder.num_samples, embedder.num_channels))
    assert logits.shape == (2, detector.window_samples)
    assert embedding.shape == (3, embedder.embedding_dim)
    assert torch.isfinite(logits).all() and torch.isfinite(embedding).all()


# Pulling from a folder, describing, and the command line


def test_pull_copies_what_is_verified(folder: Path, tmp_path: Path) -> None:
    assert pull_weights(folder) == folder
    copy = pull_weights(folder, folder=tmp_path / "copy")
    assert copy == tmp_path / "copy" and read_files(copy) == read_files(folder)
    with pytest.raises(WeightsError, match="Nothing was copied .*exists"):
        pull_weights(folder, folder=copy)
    (folder / "detector.safetensors").unlink()
    with pytest.raises(WeightsError, match="is missing"):
        pull_weights(folder, folder=copy, overwrite=True)
    load_weights(copy)


def test_description(folder: Path) -> None:
    text = describe_weights(folder)
    assert text == describe_weights(load_weights(folder))
    digest = hashlib.sha256((folder / "detector.safetensors").read_bytes()).hexdigest()
    num_parameters = sum(parameter.numel() for parameter in load_weights(folder).detector.parameters())
    expected = ("simsort-tiny", str(folder), "patch_transformer", "gru", "20000 Hz", digest, f"{num_parameters:,}")
    assert all(part in text for part in (*expected, "# Tiny weights")) and "license" not in text


def run_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_weights_parser(parser.add_subparsers())
    args = parser.parse_args(["weights", *arguments])
    return args.handler(args)


def test_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("show", str(folder)) == 0
    assert capsys.readouterr().out == describe_weights(folder) + "\n"
    assert run_command("pull", str(folder), "--output", str(tmp_path / "copy")) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'copy'}\n"
    assert run_command("pull", str(folder), "--output", str(tmp_path / "copy"), "--overwrite") == 0
    with pytest.raises(WeightsError, match="owner/name"):
        run_command("push", str(folder), "nobody")
    with pytest.raises(WeightsError, match="There is no weights folder"):
        run_command("show", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("command", ["pull", "push", "show"])
def test_help_gives_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(command, "--help")
    assert caught.value.code == 0
    assert f"example:\n  simsort weights {command} " in capsys.readouterr().out


def test_command_line_imports_neither_torch_nor_the_hub() -> None:
    code = "import spikeinterface_simsort.cli_weights, spikeinterface_simsort.weights, sys"
    run_fresh(f"{code}; assert not sys.modules.keys() & {{'torch', 'huggingface_hub', 'safetensors'}}")


# A hub


class Hub(ThreadingHTTPServer):
    """The part of the HuggingFace hub that its client needs here, over one repository in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.created: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str]] = []
        # The connection ends in the middle of this file.
        self.cut: str | None = None

    def commit(self, files: dict[str, bytes], *refs: str) -> str:
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[commit] = files
        self.refs.update(dict.fromkeys(refs, commit))
        return commit

    def downloads(self) -> list[str]:
        return sorted(path.rsplit("/")[-1] for method, path in self.requests if method == "GET" and "/resolve/" in path)


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self.answer_read()

    def do_HEAD(self) -> None:
        self.answer_read()

    def answer_read(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path))
        pattern = rf"(?:/api/models)?/{REPO_ID}/(revision|tree|resolve)/([^/]+)(?:/(.+))?"
        what, revision, name = match.groups() if (match := re.fullmatch(pattern, path)) else ("", "", "")
        commit = self.server.refs.get(revision, revision)
        files = self.server.commits.get(commit)
        if files is None:
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound" if match else "RepoNotFound"})
        elif what == "revision":
            self.reply_json({"id": REPO_ID, "sha": commit, "siblings": [{"rfilename": name} for name in files]})
        elif what == "tree":
            rows = [{"path": name, "size": len(data), "oid": self.etag(data)} for name, data in files.items()]
            self.reply_json([{"type": "file", **row} for row in rows])
        elif name not in files:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            self.reply_file(files[name], {"X-Repo-Commit": commit, "ETag": f'"{self.etag(files[name])}"'}, name=name)

    def do_POST(self) -> None:
        self.server.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer secret":
            self.reply(401, b"", {"X-Error-Message": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.reply_json({"url": f"{self.server.endpoint}/{REPO_ID}"})
        elif self.path == "/api/validate-yaml":
            self.reply_json({"errors": [], "warnings": []})
        elif self.path == f"/api/models/{REPO_ID}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            rows = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self.reply_json({"files": rows})
        elif self.path == f"/api/models/{REPO_ID}/commit/main":
            values = [row["value"] for row in map(json.loads, body.splitlines()) if row["key"] == "file"]
            commit = self.server.commit({v["path"]: base64.b64decode(v["content"]) for v in values}, "main")
            self.reply_json({"commitUrl": f"{self.server.endpoint}/{REPO_ID}/commit/{commit}", "commitOid": commit})
        else:
            self.reply(404, b"", {})

    @staticmethod
    def etag(data: bytes) -> str:
        return hashlib.sha1(data).hexdigest()

    def reply_json(self, answer: Any) -> None:
        self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def reply_file(self, data: bytes, headers: dict[str, str], *, name: str) -> None:
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if name == self.server.cut and self.command == "GET":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif start:
            span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            self.reply(206, data[start:], {**headers, **span})
        else:
            self.reply(200, data, headers)

    def reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run_fresh(code: str, **environment: str) -> str:
    """What code prints in a process of its own: the hub's client reads the environment when it is imported."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSF"))}
    environment = {**inherited, "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def call(*calls: str, **environment: str) -> str:
    """Results of calls to the module, or the messages of WeightsError, a line each, from a process of its own."""
    code = f"""
from spikeinterface_simsort.weights import *
for expression in {calls!r}:
    try:
        print(eval(expression))
    except WeightsError as error:
        print(error)
"""
    return run_fresh(code, **environment)


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Environment of a client of the hub, with a cache of its own."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}


def test_download_is_cached(hub: Hub, client: dict[str, str], folder: Path) -> None:
    files = read_files(folder)
    commit = hub.commit({**files, "optimizer.bin": b"not wanted"}, "v1")
    snapshot = Path(call(f"resolve_weights('hf://{REPO_ID}@v1')", **client))
    assert snapshot.name == commit and snapshot.is_relative_to(client["HF_HOME"])
    assert read_files(snapshot) == files
    assert load_weights(snapshot).config["name"] == CONFIG["name"]
    assert hub.downloads() == sorted(FILES)
    hub.requests.clear()
    again = call(f"resolve_weights('hf://{REPO_ID}@v1')", f"resolve_weights('hf://{REPO_ID}@{commit}')", **client)
    assert again.splitlines() == [str(snapshot)] * 2
    assert not hub.requests


def test_cached_snapshot_serves_without_a_network(hub: Hub, client: dict[str, str], folder: Path) -> None:
    hub.commit(read_files(folder), "v1")
    resolve = f"resolve_weights('hf://{REPO_ID}@v1')"
    cached_only = f"resolve_weights('hf://{REPO_ID}@v1', allow_download=False)"
    snapshot = call(resolve, **client)
    hub.requests.clear()
    assert call(resolve, cached_only, **client, HF_HUB_OFFLINE="1").splitlines() == [snapshot] * 2
    assert not hub.requests
    hub.server_close()
    assert call(resolve, cached_only, **client).splitlines() == [snapshot] * 2


def test_snapshot_that_was_not_cached_gives_advice(hub: Hub, client: dict[str, str], folder: Path) -> None:
    hub.commit(read_files(folder), "v1")
    address = f"hf://{REPO_ID}@v1"
    messages = [call(f"resolve_weights({address!r}, allow_download=False)", **client)]
    messages.append(call(f"load_weights({address!r})", **client, HF_HUB_OFFLINE="1"))
    assert not hub.requests
    hub.server_close()
    messages.append(call(f"load_weights({address!r})", **client))
    for message in messages:
        assert message.startswith(f"Could not get {address}: ")
        assert "Check the address, the network and HF_ENDPOINT" in message and "HF_HUB_OFFLINE=1" in message
        assert f"simsort weights pull {address}" in message


def test_addresses_that_the_hub_does_not_know_give_advice(hub: Hub, client: dict[str, str], folder: Path) -> None:
    hub.commit(read_files(folder), "v1")
    unknown = {f"hf://{REPO_ID}@v2": "RevisionNotFoundError", "hf://someone/else@v1": "RepositoryNotFoundError"}
    messages = call(*(f"resolve_weights({address!r})" for address in unknown), **client).splitlines()
    for message, (address, error) in zip(messages, unknown.items(), strict=True):
        assert message.startswith(f"Could not get {address}: {error}") and "Check the address" in message


def test_incomplete_repository_gives_advice(hub: Hub, client: dict[str, str], folder: Path) -> None:
    files = read_files(folder)
    del files["embedder.safetensors"]
    hub.commit(files, "v1")
    message = call(f"load_weights('hf://{REPO_ID}@v1')", **client)
    assert "embedder.safetensors is missing" in message and f"simsort weights pull hf://{REPO_ID}@v1" in message


def test_file_corrupted_on_the_hub_is_refused(hub: Hub, client: dict[str, str], folder: Path) -> None:
    files = read_files(folder)
    hub.commit({**files, "detector.safetensors": files["detector.safetensors"][:-1] + b"\x00"}, "v1")
    message = call(f"pull_weights('hf://{REPO_ID}@v1', folder={str(folder)!r}, overwrite=True)", **client)
    assert "detector.safetensors is corrupted" in message and f"simsort weights pull hf://{REPO_ID}@v1" in message
    assert read_files(folder) == files


def test_pull_mends_a_corrupted_cache(hub: Hub, client: dict[str, str], folder: Path) -> None:
    files = read_files(folder)
    hub.commit(files, "v1")
    address, copy = f"hf://{REPO_ID}@v1", folder.with_name("copy")
    damage = f"(resolve_weights({address!r}) / 'detector.safetensors').write_bytes(b'damaged')"
    answers = call(
        damage, f"pull_weights({address!r}, folder={str(copy)!r})", f"resolve_weights({address!r})", **client
    )
    assert [str(len(b"damaged")), str(copy)] == answers.splitlines()[:2]
    assert read_files(Path(answers.splitlines()[2])) == read_files(copy) == files


def test_half_a_download_is_not_taken_for_whole(hub: Hub, client: dict[str, str], folder: Path) -> None:
    files = read_files(folder)
    hub.commit(files, "v1")
    hub.cut = "detector.safetensors"
    address = f"hf://{REPO_ID}@v1"
    message = call(f"load_weights({address!r})", **client)
    assert message.startswith(f"Could not get {address}: ")
    # What did come is there, and does not pass for the snapshot.
    came = [path for path in Path(client["HF_HOME"]).rglob("*") if path.is_file() and path.stat().st_size]
    assert came
    message = call(f"load_weights({address!r})", **client, HF_HUB_OFFLINE="1")
    assert message.startswith((f"Could not get {address}: ", f"The weights {address!r} cannot be used: "))
    hub.cut = None
    snapshot = call(f"load_weights({address!r}).folder", **client)
    assert read_files(Path(snapshot)) == files


def test_push_then_pull(hub: Hub, client: dict[str, str], folder: Path) -> None:
    push = f"push_weights({str(folder)!r}, repo_id={REPO_ID!r}, private=True"
    calls = (f"{push}, token='wrong')", f"(address := {push}))", "pull_weights(address)")
    refusal, address, snapshot = call(*calls, **client, HF_TOKEN="secret").splitlines()
    assert refusal.startswith(f"Could not publish to {REPO_ID}: ") and "hf auth login" in refusal
    assert address == f"hf://{REPO_ID}@{hub.refs['main']}"
    assert list(hub.commits.values()) == [read_files(folder)] == [read_files(Path(snapshot))]
    # Which of the two depends on the version of the hub's client.
    assert [row.get("visibility") == "private" or row.get("private") for row in hub.created] == [True]


def test_only_whole_weights_are_pushed(folder: Path) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(WeightsError, match=r"write a README\.md before publishing"):
        push_weights(folder, repo_id=REPO_ID)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json is missing"):
        push_weights(folder, repo_id=REPO_ID)
