"""Fetching of cells: from a server on this machine that fails as servers do, and from a hub that is not there."""

from __future__ import annotations

import argparse
import io
import json
import logging
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from spikeinterface_simsort import cli_fetch
from spikeinterface_simsort.cli_common import CommandError
from spikeinterface_simsort.simulation import download as download_module
from spikeinterface_simsort.simulation.cells import read_cells
from spikeinterface_simsort.simulation.download import FetchError, download
from spikeinterface_simsort.simulation.fetch import SOURCES, Source, fetch_hub, fetch_source, unpack_cells

MAX_REQUESTS = 20
CELL = {"secs": {"soma": {"geom": {"L": 20, "diam": 20, "Ra": 100, "cm": 1}, "mechs": {}}}}


def make_archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = make_archive(
    {
        "repo/cells/L1_DAC_bNAC219_1_cellParams.json": json.dumps(CELL).encode(),
        "repo/cells/L4_SS_cADpyr230_2_cellParams.json": json.dumps(CELL).encode(),
        "repo/cells/._L4_SS_cADpyr230_2_cellParams.json": b"of a Mac",
        "repo/copy/L1_DAC_bNAC219_1_cellParams.json": b"a copy, which does not count",
        "repo/data/cfg.json": b"{}",
    }
)
CONTENT = bytes(range(256)) * 1000


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    etag: str | None = '"first"'
    ranges: bool = True
    chunked: bool = False
    # Bytes after which a connection is cut, one for each of the first connections.
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    asked: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def do_GET(self) -> None:
        do = self.behaviour
        do.asked.append(dict(self.headers))
        self.close_connection = True
        if do.status != 200 or len(do.asked) > MAX_REQUESTS:
            self.send_error(do.status if do.status != 200 else 410)
            return
        start = self._start()
        if start >= len(do.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(do.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = do.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(do.content) - 1}/{len(do.content)}")
        if do.etag is not None:
            self.send_header("ETag", do.etag)
        if do.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = do.cuts.pop(0) if do.cuts else None
        sent = body[:cut]
        self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) if do.chunked else sent)
        if do.chunked and cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def _start(self) -> int:
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in {None, self.behaviour.etag}
        return int(asked[len("bytes=") : -1]) if asked and same and self.behaviour.ranges else 0

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@dataclass
class Server:
    url: str
    behaviour: Behaviour


@pytest.fixture
def server() -> Iterator[Server]:
    behaviour = Behaviour()
    handler = type("OneHandler", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield Server(f"http://127.0.0.1:{httpd.server_address[1]}/file", behaviour)
        httpd.shutdown()
        thread.join()


@pytest.fixture
def source(server: Server) -> Source:
    server.behaviour.content = ARCHIVE
    return replace(SOURCES["s1"], url=server.url)


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def get(server: Server, path: Path, **kwargs: Any) -> str:
    return download(server.url, path, **({"wait_s": 0.0, "timeout_s": 10.0} | kwargs))


def interrupt(server: Server, path: Path, *, after: int) -> None:
    """Leave a partial file of the server's."""
    server.behaviour.cuts = [after]
    with pytest.raises(FetchError, match=r"Could not fetch .* MB came: run it again to go on"):
        get(server, path, attempts=1)
    assert path.with_name(f"{path.name}.partial").stat().st_size == after
    assert not path.exists()
    server.behaviour.asked.clear()


# Download


@pytest.mark.parametrize("chunked", [False, True])
def test_whole(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.behaviour.chunked = chunked
    assert get(server, tmp_path / "file", sha256=digest_of(CONTENT).upper()) == digest_of(CONTENT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("chunked", [False, True])
def test_goes_on_after_a_cut(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.behaviour.chunked = chunked
    server.behaviour.cuts = [100_000, 50_000, 30_000]
    # Two: connections that bring something do not count.
    assert get(server, tmp_path / "file", attempts=2) == digest_of(CONTENT)
    asked = [request.get("Range") for request in server.behaviour.asked]
    assert asked == [None, "bytes=100000-", "bytes=150000-", "bytes=180000-"]
    assert {request.get("If-Range") for request in server.behaviour.asked[1:]} == {'"first"'}


def test_goes_on_in_the_next_run(server: Server, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file", after=1000)
    assert get(server, tmp_path / "file") == digest_of(CONTENT)
    assert [request["Range"] for request in server.behaviour.asked] == ["bytes=1000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_server_without_ranges(server: Server, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file", after=1000)
    server.behaviour.ranges = False
    assert get(server, tmp_path / "file") == digest_of(CONTENT)
    assert len(server.behaviour.asked) == 1


def test_file_that_changed(server: Server, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file", after=1000)
    server.behaviour.content, server.behaviour.etag = CONTENT[::-1], '"second"'
    assert get(server, tmp_path / "file") == digest_of(CONTENT[::-1])


def test_server_that_ignores_if_range(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(server, tmp_path / "file", after=1000)
    server.behaviour.content, server.behaviour.etag = CONTENT[::-1], '"second"'
    monkeypatch.setattr(Handler, "_start", lambda self: int(self.headers.get("Range", "bytes=0-")[6:-1]))
    assert get(server, tmp_path / "file") == digest_of(CONTENT[::-1])
    assert [request.get("Range") for request in server.behaviour.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_nothing_to_tell_versions_by(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.behaviour.etag = etag
    interrupt(server, tmp_path / "file", after=1000)
    assert get(server, tmp_path / "file") == digest_of(CONTENT)
    assert "Range" not in server.behaviour.asked[0]


def test_other_address(server: Server, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file", after=1000)
    assert download(f"{server.url}?another", tmp_path / "file", wait_s=0.0) == digest_of(CONTENT)
    assert "Range" not in server.behaviour.asked[0]


def test_nothing_left_to_send(server: Server, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file", after=len(CONTENT) - 1)
    with (tmp_path / "file.partial").open("ab") as file:
        file.write(CONTENT[-1:])
    assert get(server, tmp_path / "file") == digest_of(CONTENT)
    assert len(server.behaviour.asked) == 1


def test_file_that_became_shorter(server: Server, tmp_path: Path) -> None:
    interrupt(server, tmp_path / "file", after=5000)
    server.behaviour.content = CONTENT[:3000]
    assert get(server, tmp_path / "file") == digest_of(CONTENT[:3000])
    assert len(server.behaviour.asked) == 2


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"its sha256 is {digest_of(CONTENT)}, not {'0' * 64}. It was removed"):
        get(server, tmp_path / "file", sha256="0" * 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "message", "num_asked"),
    [
        (404, "answers 404 .*; the address is wrong, or the file is gone", 1),
        (403, "answers 403", 1),
        (503, r"Could not fetch .*answers 503 .*Check the network\.$", 3),
    ],
)
def test_refusal(server: Server, tmp_path: Path, status: int, message: str, num_asked: int) -> None:
    server.behaviour.status = status
    with pytest.raises(FetchError, match=message):
        get(server, tmp_path / "file", attempts=3)
    assert len(server.behaviour.asked) == num_asked
    assert not list(tmp_path.iterdir())


def test_no_server(tmp_path: Path) -> None:
    # A port that nothing listens at, as it was just given back.
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        port = httpd.server_address[1]
    with pytest.raises(FetchError, match=r"no connection .*Check the network"):
        download(f"http://127.0.0.1:{port}/file", tmp_path / "file", attempts=2, wait_s=0.0)


def test_address_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="must start with https://"):
        download("file:///etc/hostname", tmp_path / "file")


def test_no_room(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda path: argparse.Namespace(free=1000))
    with pytest.raises(FetchError, match="make room, or choose another folder"):
        get(server, tmp_path / "file")


# Sources


def test_source(source: Source, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = fetch_source(source, tmp_path / "s1")
    assert cells == tmp_path / "s1" / "cells"
    assert [cell.name for cell in read_cells(cells)] == ["L1_DAC_bNAC219_1", "L4_SS_cADpyr230_2"]
    record = json.loads((tmp_path / "s1" / "SOURCE.json").read_text())
    assert record.pop("fetched")[:2] == "20"
    assert record == {
        "name": "s1",
        "title": source.title,
        "url": server.url,
        "sha256": digest_of(ARCHIVE),
        "size_bytes": len(ARCHIVE),
        "citation": source.citation,
        "licence": "CC BY-NC-SA 4.0",
        "licence_url": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    }
    assert f"Nobody has pinned the sha256 of s1; this one is {digest_of(ARCHIVE)}" in caplog.text
    assert sorted(path.name for path in (tmp_path / "s1").iterdir()) == ["SOURCE.json", "cells", "s1.tar.gz"]


def test_complete_source_is_not_fetched_again(source: Source, server: Server, tmp_path: Path) -> None:
    cells = fetch_source(source, tmp_path)
    before = (tmp_path / "SOURCE.json").read_text()
    assert fetch_source(source, tmp_path) == cells
    assert len(server.behaviour.asked) == 1
    assert (tmp_path / "SOURCE.json").read_text() == before


def test_archive_brought_by_other_means(source: Source, server: Server, tmp_path: Path) -> None:
    (tmp_path / "s1.tar.gz").write_bytes(ARCHIVE)
    assert len(read_cells(fetch_source(source, tmp_path, sha256=digest_of(ARCHIVE)))) == 2
    assert not server.behaviour.asked


def test_archive_that_changed_on_disk(source: Source, tmp_path: Path) -> None:
    fetch_source(source, tmp_path)
    with (tmp_path / "s1.tar.gz").open("ab") as file:
        file.write(b"more")
    with pytest.raises(FetchError, match=f"is not what it should be: .* not {digest_of(ARCHIVE)}. Remove it"):
        fetch_source(source, tmp_path)


def test_archive_that_changed_on_the_server(source: Source, server: Server, tmp_path: Path) -> None:
    fetch_source(source, tmp_path)
    (tmp_path / "s1.tar.gz").unlink()
    server.behaviour.content = make_archive({"other_cellParams.json": b"{}"})
    with pytest.raises(FetchError, match="is not the file that was expected"):
        fetch_source(source, tmp_path)


def test_pinned_checksum(source: Source, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="is not the file that was expected"):
        fetch_source(replace(source, sha256="1" * 64), tmp_path)
    with pytest.raises(FetchError, match="'abc' is no sha256"):
        fetch_source(source, tmp_path, sha256="abc")


def test_folder_of_another_source(source: Source, server: Server, tmp_path: Path) -> None:
    fetch_source(source, tmp_path)
    with pytest.raises(FetchError, match=f"holds what came from {server.url}: choose another folder"):
        fetch_source(source, tmp_path, url=f"{server.url}/mirror")
    (tmp_path / "SOURCE.json").write_text("{")
    with pytest.raises(FetchError, match=r"SOURCE\.json cannot be read"):
        fetch_source(source, tmp_path)


def test_archive_without_cells(source: Source, server: Server, tmp_path: Path) -> None:
    server.behaviour.content = make_archive({"README.md": b"nothing"})
    with pytest.raises(FetchError, match=r"holds no cell: nothing in it is called \*_cellParams\.json"):
        fetch_source(source, tmp_path)
    assert not (tmp_path / "cells").exists()


@pytest.mark.parametrize("content", [b"<html>gone</html>", ARCHIVE[: len(ARCHIVE) // 2]])
def test_archive_that_cannot_be_unpacked(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(FetchError, match="cannot be unpacked: .* Remove it and fetch it again"):
        unpack_cells(tmp_path / "a.tar.gz", tmp_path / "cells", suffix=".json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_members_cannot_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(make_archive({"../../out.json": b"{}", "/abs.json": b"{}", "..\\w.json": b"{}"}))
    assert unpack_cells(tmp_path / "a.tar", tmp_path / "in" / "cells", suffix=".json") == 3
    assert sorted(path.name for path in (tmp_path / "in" / "cells").iterdir()) == ["abs.json", "out.json", "w.json"]


def test_sources_say_whose_they_are() -> None:
    for name, source in SOURCES.items():
        assert name == source.name
        assert source.url.startswith("https://")
        assert source.licence_url.startswith("https://creativecommons.org/")
        assert "Markram et al. 2015" in source.citation


# Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the hub: what it was asked for."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **kwargs: Any) -> str:
        asked.append({"repo_id": repo_id, **kwargs})
        if repo_id == "owner/missing":
            raise ValueError("no such\ndata set.")
        Path(kwargs["local_dir"]).mkdir(parents=True)
        (Path(kwargs["local_dir"]) / "one_cellParams.json").write_text(json.dumps(CELL))
        return str(kwargs["local_dir"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_hub(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    cells = fetch_hub("hf://owner/cells@v1.0", tmp_path / "set")
    assert hub == [{"repo_id": "owner/cells", "repo_type": "dataset", "revision": "v1.0", "local_dir": cells}]
    assert [cell.name for cell in read_cells(cells)] == ["one"]
    record = json.loads((tmp_path / "set" / "SOURCE.json").read_text())
    assert (record["url"], record["revision"]) == ("hf://owner/cells@v1.0", "v1.0")
    assert fetch_hub("hf://owner/cells@v1.0", tmp_path / "set") == cells
    assert len(hub) == 1
    with pytest.raises(FetchError, match="holds what came from hf://owner/cells@v1.0"):
        fetch_hub("hf://owner/cells@v2.0", tmp_path / "set")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://owner", "write it as hf://owner/name@revision"),
        ("owner/cells@v1", "write it as hf://owner/name@revision"),
        ("hf://owner/cells", "pin a revision, as in hf://owner/cells@<commit or tag>"),
        ("hf://owner/cells@main", "pin a revision"),
        ("hf://owner/missing@v1", "Could not get hf://owner/missing@v1: no such data set. Check the address"),
    ],
)
def test_hub_refusal(hub: list[dict[str, Any]], tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        fetch_hub(address, tmp_path / "set")
    assert not (tmp_path / "set" / "SOURCE.json").exists()


# Command line


def run_command(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    cli_fetch.add_fetch_parser(parser.add_subparsers())
    args = parser.parse_args(["fetch", *argv])
    return args.handler(args)


def test_command(
    source: Source, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="spikeinterface_simsort")
    assert run_command("s1", "--accept-licence", "--output", str(tmp_path / "s1"), "--url", server.url) == 0
    assert capsys.readouterr().out == f"{tmp_path / 's1' / 'cells'}\n"
    first = caplog.records[0].getMessage()
    assert "CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/)" in first
    assert "Borges et al. 2022" in first


def test_command_hub(hub: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("hf://owner/cells@v1", "--accept-licence", "--output", str(tmp_path / "set")) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'set' / 'cells'}\n"


def test_command_default_folder(
    source: Source, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spikeinterface_simsort.simulation import mechanisms

    monkeypatch.setattr(mechanisms, "cache_folder", lambda: tmp_path)
    assert run_command("s1", "--accept-licence", "--url", server.url) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'sources' / 's1' / 'cells'}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["s1"], r"CC BY-NC-SA 4\.0 .* Read them, and pass --accept-licence"),
        (["hf://owner/cells@v1"], "its card .* pass --accept-licence"),
        (["s2", "--accept-licence"], "There is no source 's2': choose s1, nmc, or hf://"),
        (["hf://owner/cells@v1", "--sha256", "0" * 64], "--url and --sha256 are for archives"),
        (["s1", "--accept-licence", "--url", "ftp://example.org/x"], "must start with https://"),
    ],
)
def test_command_refusal(tmp_path: Path, argv: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run_command(*argv, "--output", str(tmp_path / "folder"))


def test_command_output_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="is a file: choose another folder"):
        run_command("s1", "--output", str(tmp_path / "file"))


def test_command_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_command("--help")
    text = capsys.readouterr().out
    assert all(name in text for name in SOURCES)
    assert "simsort fetch s1 --accept-licence" in text
