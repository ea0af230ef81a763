"""A real uvicorn server over the API, for tests."""

import asyncio
import socket
import threading
import time

import httpx
import openai
import uvicorn

from services.serving.directory import Directory
from services.serving.http.app import create_app
from services.serving.keys import Keys

KEYS = Keys("sk-service", lambda: {"acme": "sk-acme", "globex": "sk-globex"})
BROKEN = "sha256:" + "b" * 64


class Outcomes(list):
    async def emit(self, outcome):
        self.append(outcome)


class Server:
    def __init__(self, engine, folders):
        self.outcomes = Outcomes()
        self.directory = Directory(base_label="tiny")
        app = create_app(
            engine=lambda: engine,
            directory=self.directory,
            keys=KEYS,
            sink=self.outcomes,
            folders=folders,
        )
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[self.socket]))
        )

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(timeout=20)
        self.socket.close()

    def client(self, key="sk-acme"):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def post(self, path, key="sk-acme", headers=None, **body):
        return httpx.post(
            f"{self.url}{path}",
            json=body,
            headers={"Authorization": f"Bearer {key}", **(headers or {})},
            timeout=60,
        )

    def wait_outcomes(self, count):
        for _ in range(500):
            if len(self.outcomes) >= count:
                return list(self.outcomes)
            time.sleep(0.02)
        raise AssertionError(f"{len(self.outcomes)} outcomes of {count}")
