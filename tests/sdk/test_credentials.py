"""Users and passwords of cameras in a netrc file: sent to their host, and shown nowhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest

from spatialnet_edge.core.errors import SourceRefused, UsageError
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.runtime.inputs import open_input
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.service.config import load_service_config
from spatialnet_edge.sources.credentials import CREDENTIALS_VARIABLE, with_credentials
from spatialnet_edge.sources.supervised import ignore_event

PASSWORD = "S3cr3t@/#"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.write_text(f"machine 127.0.0.1 login pilot password {PASSWORD}\nmachine camera login a password b\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A web server whose recording needs a user and a password."""
    video = tmp_path / "x.ts"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(40):
            picture = noise.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    wanted = "Basic " + base64.b64encode(f"pilot:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            admitted = self.headers.get("Authorization") == wanted
            self.send_response(200 if admitted else 401)
            if not admitted:
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", str(video.stat().st_size if admitted else 0))
            self.end_headers()
            if admitted:
                self.wfile.write(video.read_bytes())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/x.ts"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.fault(82)
def test_a_camera_gets_the_password_and_nobody_sees_it(guarded: str, file: Path) -> None:
    with pytest.raises(SourceRefused, match="401 Unauthorized"):
        open_input(guarded, StreamOptions(own_process=False), ignore_event)
    source = open_input(guarded, StreamOptions(own_process=False, credentials=str(file)), ignore_event)
    found = []
    with pytest.raises(Exception, match="stream ended"):
        found.extend(collect(source, found))
    assert {item.source for item in found if isinstance(item, Frame)} == {guarded}
    source.close()
    named = open_input(guarded, StreamOptions(credentials=str(file)), ignore_event)
    assert named.uri == guarded


def collect(source, kept):
    for item in source:
        kept.append(item)
    return []


def test_only_the_host_that_is_named_gets_them(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_credentials("rtsp://camera:554/1?x=1", str(file)) == "rtsp://a:b@camera:554/1?x=1"
    assert with_credentials("rtsp://127.0.0.1/1", str(file)) == "rtsp://pilot:S3cr3t%40%2F%23@127.0.0.1/1"
    for address in ("rtsp://other/1", "rtsp://me:mine@camera/1", "udp://@:5000"):
        assert with_credentials(address, str(file)) == address
    assert with_credentials("rtsp://camera/1") == "rtsp://camera/1"
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(file))
    assert with_credentials("rtsp://camera/1") == "rtsp://a:b@camera/1"


@pytest.mark.fault(82)
def test_a_file_that_others_may_read_or_that_is_none_is_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and by the check of a service's configuration as well."""
    payload = tmp_path / "payload.toml"
    payload.write_text('sinks = ["null:"]\n[cameras]\nfront = "rtsp://camera/1"\n')
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(file))
    load_service_config(payload)
    file.chmod(0o640)
    for refuse in (lambda: with_credentials("rtsp://camera/1"), lambda: load_service_config(payload)):
        with pytest.raises(Exception, match=r"others may read the passwords in it; run: chmod 600") as refused:
            refuse()
        assert getattr(refused.value, "exit_status", None) in (2, 78)
    for content in (f"machine camera login a password {PASSWORD} colour", "pilot:S3cr3t"):
        file.write_text(content)
        os.chmod(file, 0o600)
        with pytest.raises(UsageError, match="cannot be read as a netrc file") as broken:
            with_credentials("rtsp://camera/1")
        assert "S3cr3t" not in str(broken.value)
    with pytest.raises(UsageError, match="cannot be read"):
        with_credentials("rtsp://camera/1", str(tmp_path / "none"))
