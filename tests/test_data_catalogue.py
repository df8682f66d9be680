"""Downloads against a local server: resume, verification, and everything that goes wrong."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.catalogue import CATALOGUE, DataSet, RemoteFile, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = "md5:" + hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under /files/a.npy; attributes say how well."""

    daemon_threads = True
    content = CONTENT
    ranges = True
    etag = '"v1"'
    cut_after: int | None = None  # drop the connection after so many bytes of the answer
    requests: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, content = self.server, self.server.content
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if self.path != "/files/a.npy":
            self.send_error(404)
            return
        start = 0
        same = self.headers.get("If-Range", server.etag) == server.etag
        if wanted and server.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(content[start:][: server.cut_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    running.requests = []
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def dataset(server: Server, **known: object) -> DataSet:
    url = f"http://127.0.0.1:{server.server_port}"
    return DataSet("toy", "toy", "", url, (RemoteFile("a.npy", **known), RemoteFile("b.npy")))


@pytest.mark.parametrize("checksum", [MD5, SHA])
def test_download_and_verify(server: Server, tmp_path: Path, checksum: str) -> None:
    known = dataset(server, size=len(CONTENT), checksum=checksum)
    path = fetch(known, "a.npy", tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["a.npy"]
    assert fetch(known, "a.npy", path.parent) == path
    assert len(server.requests) == 1  # the second call finds it


def test_unknown_checksum_says_unverified(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(dataset(server), "a.npy", tmp_path)
    assert "a.npy: unverified, no checksum is known" in caplog.text


def cut(server: Server, tmp_path: Path) -> DataSet:
    """A first download that the server cuts after 100 kB."""
    known = dataset(server, checksum=MD5)
    server.cut_after = 100_000
    with pytest.raises(
        DataError, match="connection was cut after 100000 of 300000 bytes; run again"
    ):
        fetch(known, "a.npy", tmp_path)
    assert not (tmp_path / "a.npy").exists()
    server.cut_after = None
    return known


def test_resume(server: Server, tmp_path: Path) -> None:
    """Fails if the second call starts from zero, or appends to the wrong place."""
    known = cut(server, tmp_path)
    assert fetch(known, "a.npy", tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_resume_twice(server: Server, tmp_path: Path) -> None:
    known = cut(server, tmp_path)
    server.cut_after = 50_000
    with pytest.raises(DataError, match="cut after 150000 of 300000"):
        fetch(known, "a.npy", tmp_path)
    server.cut_after = None
    assert fetch(known, "a.npy", tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=150000-"]


def test_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    """Fails if a 200 answer is appended to the partial file."""
    known = cut(server, tmp_path)
    server.ranges = False
    assert fetch(known, "a.npy", tmp_path).read_bytes() == CONTENT


def test_file_that_changed_meanwhile_starts_again(server: Server, tmp_path: Path) -> None:
    """Fails without If-Range: the halves of two versions would be glued together."""
    cut(server, tmp_path)
    server.content, server.etag = CONTENT[::-1], '"v2"'
    assert fetch(dataset(server), "a.npy", tmp_path).read_bytes() == CONTENT[::-1]


def test_partial_file_longer_than_the_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".a.npy.part").write_bytes(CONTENT + b"more")
    assert fetch(dataset(server, checksum=MD5), "a.npy", tmp_path).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT) + 4}-", None]


def test_wrong_checksum_and_size(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=f"a.npy: checksum {MD5} is not md5:00; .* damaged or was changed"
    ):
        fetch(dataset(server, checksum="md5:00"), "a.npy", tmp_path)
    with pytest.raises(DataError, match=r"a.npy: has 300000 bytes, but 5 are expected"):
        fetch(dataset(server, size=5), "a.npy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_server_and_network(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"/files/b.npy: the server answers 404 Not Found; check the address"
    ):
        fetch(dataset(server), "b.npy", tmp_path)
    with pytest.raises(DataError, match=r"no connection .*; check the network"):
        fetch(dataset(server), "a.npy", tmp_path, base_url="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="only http and https"):
        fetch(dataset(server), "a.npy", tmp_path, base_url="file:///etc")
    with pytest.raises(ConfigError, match=r"has no file '../x'; known: a.npy, b.npy"):
        fetch(dataset(server), "../x", tmp_path)
    with pytest.raises(ConfigError, match="unknown data set 'x'; known: squirels-zenodo"):
        fetch("x", "a.npy", tmp_path)


def test_nothing_is_invented() -> None:
    """Sizes and checksums that nobody has seen stay empty."""
    entry = CATALOGUE["squirels-zenodo"]
    assert entry.doi == "10.5281/zenodo.8275193"
    assert len(entry.files) == 10
    assert all(f.size is None and f.checksum is None for f in entry.files)
    assert {"run_Geant_100k_10_100GeV_full.npy", "run_GFlash01_100k_80GeV_eval_full.npy"} <= {
        f.name for f in entry.files
    }
