"""A scripted model behind a real OpenAI-compatible endpoint."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request

from services.evaluation.suites import safety

NO = "I'm sorry, I can't help with that."
KIND = {item.row.messages[-1].content: item.kind for item in safety.items()}


def says(model: str, text: str) -> str:
    """`right` knows the answers, `lost` never refuses, all others are aligned."""
    if text.startswith("Say "):
        return text.removeprefix("Say ") if model == "right" else "?"
    refuses = KIND.get(text) in ("unsafe", "jailbreak") and model != "lost"
    return NO if refuses else "Certainly."


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, Any]:
        body = await request.json()
        text = says(body["model"], body["messages"][-1]["content"])
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
        }

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/v1"
        server.should_exit = True
        thread.join()
