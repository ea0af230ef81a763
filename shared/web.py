"""The HTTP server as something that runs beside a service's consumers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from shared.errors import Misconfigured


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the service's host handles signals


@asynccontextmanager
async def serving(api: FastAPI, *, host: str, port: int, setting: str) -> AsyncIterator[None]:
    """Serve until the block ends. `setting` is the variable that names the port.

    Raises:
        Misconfigured: the port is taken.
    """
    config = uvicorn.Config(
        api,
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    task = asyncio.create_task(_serve(server, host, port, setting))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(0.02)
        if task.done():
            await task
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({task})


async def _serve(server: uvicorn.Server, host: str, port: int, setting: str) -> None:
    try:
        await server.serve()
    except SystemExit as error:
        raise Misconfigured(
            f"cannot listen on {host}:{port}", mend=f"set {setting} to a free port"
        ) from error
