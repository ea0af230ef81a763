"""vLLM's server, started again whenever it ends by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import httpx

from services.serving.engine.vllm.server import VllmServer
from shared.errors import SluiceError

START_WITHIN_S = 900.0
AGAIN_AFTER_S = 5.0
"""Between tries to start it again."""

_log = logging.getLogger(__name__)


class StandingServer:
    """See `VllmServer`; one at a time, each on a socket of its own."""

    def __init__(self, start: Callable[[], VllmServer], *, restore: Callable[[], None]) -> None:
        """`restore` gives a fresh server what the last one held, before it counts as ready."""
        self._start, self._restore = start, restore
        self._server = start()
        self._answers = False
        self._closing = threading.Event()
        self._replacing = threading.Lock()
        self._watch = threading.Thread(target=self._stand, name="vllm", daemon=True)

    @property
    def ready(self) -> bool:
        return self._answers and self._server.alive

    def client(self) -> httpx.Client:
        return self._server.client()

    def async_client(self) -> httpx.AsyncClient:
        return self._server.async_client()

    def open(self) -> None:
        """Return once it answers; from then on it is watched. Raises Misconfigured."""
        self._server.wait(timeout_s=START_WITHIN_S)
        self._answers = True
        self._watch.start()

    def close(self) -> None:
        """End it, for good."""
        with self._replacing:
            self._closing.set()
            self._server.close()
        if self._watch.is_alive():
            self._watch.join()

    def _stand(self) -> None:
        while not self._closing.is_set():
            code = self._server.ended()
            self._answers = False
            if not self._closing.is_set():
                said = self._server.last_words()
                _log.error("vLLM ended with %s and is started again: %s", code, said)
            while not (self._answers or self._closing.is_set()):
                try:
                    self._replace()
                except SluiceError as error:
                    if not self._closing.is_set():
                        _log.error("vLLM is away, requests are answered 503: %s", error)
                    self._closing.wait(AGAIN_AFTER_S)

    def _replace(self) -> None:
        with self._replacing:
            if self._closing.is_set():
                return
            self._server.close()
            self._server = self._start()
        self._server.wait(timeout_s=START_WITHIN_S)
        self._restore()
        self._answers = True
