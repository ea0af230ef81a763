"""What stands in for vLLM's server where a test is about its process or about what it is sent.

`python fake_vllm.py NOTES -m vllm... --uds SOCKET ...`: every request is a line of NOTES, and so is
the process id when it starts. Answers are one token, 7.
"""

import json
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

NOTES = Path(sys.argv[1])
SOCKET = sys.argv[sys.argv.index("--uds") + 1]
CHOICE = {
    "token_ids": [7],
    "finish_reason": "length",
    "logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{"token_id:7": -1.0}]},
    "prompt_logprobs": [None, {"9": {"logprob": -4.0}}],
}


def note(what, value):
    with NOTES.open("a") as out:
        out.write(json.dumps([what, value]) + "\n")


class Handler(BaseHTTPRequestHandler):
    def address_string(self):
        return "a socket"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note(self.path, asked)
        said = json.dumps({"choices": [CHOICE]})
        self.answer(f"data: {said}\n\n".encode() if asked.get("stream") else said.encode())

    def answer(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    note("pid", os.getpid())
    with socketserver.ThreadingUnixStreamServer(SOCKET, Handler) as server:
        server.serve_forever()
