"""docs/spot.sh, with a server in place of EC2's metadata."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alexlab.config import PROJECT_DIR

SCRIPT = ["bash", str(PROJECT_DIR / "docs" / "spot.sh")]
# Says that it can be stopped, and ends when its input does.
COMMAND = 'trap "echo saved; exit 75" TERM; echo ready; while read -r -t 1; [ $? -gt 128 ]; do :; done; exit 3'

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not shutil.which("curl"), reason="no curl"),
]


class Metadata(ThreadingHTTPServer):
    """Instance metadata, version 2: it answers only with a token that was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.is_announced, self.asked = threading.Event(), threading.Event()


class Answer(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        is_right = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200 if is_right else 400, "a token")

    def do_GET(self) -> None:
        assert isinstance(self.server, Metadata)
        if self.headers["X-aws-ec2-metadata-token"] != "a token":
            self._answer(401)
        elif self.path == "/latest/meta-data/spot/instance-action" and self.server.is_announced.is_set():
            self._answer(200, '{"action": "terminate", "time": "2030-01-01T00:00:00Z"}')
        else:
            self._answer(404)
            self.server.asked.set()

    def _answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def start(metadata: Metadata) -> subprocess.Popen[str]:
    environment = {**os.environ, "SPOT_METADATA": f"http://127.0.0.1:{metadata.server_port}/latest", "no_proxy": "*"}
    return subprocess.Popen(
        [*SCRIPT, "bash", "-c", COMMAND], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_notice_stops_the_command_once(metadata: Metadata):
    with start(metadata) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert metadata.asked.wait(60)  # and got no notice
        assert process.poll() is None
        metadata.is_announced.set()
        assert process.stdout.read() == "saved\n"
        assert process.wait() == 75


def test_without_a_notice_it_is_the_command(metadata: Metadata):
    with start(metadata) as process:
        assert metadata.asked.wait(60)
        output, _ = process.communicate()  # closes its input
        assert (output, process.returncode) == ("ready\n", 3)


def test_mistakes():
    done = subprocess.run(SCRIPT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: docs/spot.sh COMMAND [ARGUMENT ...]\n")
