"""The load driver against a small HTTP server of the gateway's shape."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

DRIVER = Path(__file__).parents[2] / "examples" / "tool-calls" / "traffic.py"
ROWS = [
    {"id": "a", "messages": [{"role": "user", "content": "one"}]},
    {"id": "b", "messages": [{"role": "user", "content": "two"}], "tools": [{"type": "function"}]},
]


@pytest.fixture
def gateway():
    """Answers 404, then 429 and 503, then like a deployment that serves."""
    refusals = [404, 429, 503]
    seen: list[tuple[str, dict]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                status = refusals.pop(0) if refusals else 200
                if status == 200:
                    seen.append((self.headers["X-Conversation-Id"], body))
            self.send_response(status)
            self.send_header("X-Sluice-Model", "Base-tool_calls-v1")
            if status == 429:
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def command(tmp_path: Path, gateway):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return [
        sys.executable,
        str(DRIVER),
        str(rows),
        "--deployment",
        "assistant",
        "--url",
        gateway[0],
    ]


def test_it_waits_for_the_deployment_and_replays_rows_in_new_conversations(
    command, gateway
) -> None:
    done = subprocess.run(
        [*command, "--requests", "20", "--concurrency", "3"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "20 requests, 20 ok, 3 waits" in done.stdout
    assert "Base-tool_calls-v1 20" in done.stdout
    _, seen = gateway
    assert len({conversation for conversation, _ in seen}) == 20
    bodies = [body for _, body in seen]
    assert {b["model"] for b in bodies} == {"assistant"}
    assert {(b["max_tokens"], b["temperature"]) for b in bodies} == {(64, 0)}
    assert sum("tools" in b for b in bodies) == 10


@pytest.mark.parametrize("how", ["file", "seconds", "signal"])
def test_it_stops_when_told(command, tmp_path: Path, how) -> None:
    flag = tmp_path / "done"
    ends = {"file": ["--until-file", str(flag)], "seconds": ["--seconds", "4"], "signal": []}
    process = subprocess.Popen(
        [*command, "--rate", "40", "--every", "0.5", *ends[how]],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while ", 0 ok" in process.stdout.readline():
        pass
    if how == "file":
        flag.touch()
    if how == "signal":
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=20)
    assert time.monotonic() - began < 4.5
    assert process.returncode == 0
