"""vLLM's OpenAI server as a process of its own, in an environment of its own.

It listens on a Unix socket in a private folder, so nobody else reaches it, and dies with us.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from services.serving.engine.vllm.flags import VllmFlags
from services.serving.engine.vllm.keeper import STOP_WITHIN_S, kept
from shared.errors import Misconfigured

BASE = "base"
"""What the base is called there."""


class VllmServer:
    """Start it, wait for it, close it."""

    def __init__(
        self,
        python: Path,
        folder: Path,
        flags: VllmFlags,
        *,
        dtype: str,
        slots: int,
        more: Sequence[str] = (),
    ) -> None:
        """`python` is the interpreter of an environment that has vLLM; `more` are further flags.

        Raises:
            Misconfigured: there is no such interpreter.

        """
        if not python.exists():
            raise Misconfigured(
                f"no vLLM environment: {python} is missing",
                mend="run `make vllm`, or set SLUICE_VLLM_PYTHON",
            )
        self._room = tempfile.TemporaryDirectory(prefix="sluice-vllm-")
        self.socket = Path(self._room.name) / "http.sock"
        self.log = Path(self._room.name) / "log"
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                kept([str(python), *_words(folder, flags, dtype, slots, self.socket), *more]),
                cwd=self._room.name,
                env=_environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        return self._process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        try:
            said = self.log.read_text(errors="replace").splitlines()[-12:]
        except FileNotFoundError:  # closed meanwhile
            return "closed"
        return " / ".join(line.strip() for line in said if line.strip())

    def client(self) -> httpx.Client:
        """A blocking client; the caller closes it."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://vllm", timeout=120.0)

    def async_client(self) -> httpx.AsyncClient:
        """One for the running event loop; the caller closes it."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        return httpx.AsyncClient(transport=transport, base_url="http://vllm", timeout=None)

    def wait(self, *, timeout_s: float) -> None:
        """Return once it answers.

        Raises:
            Misconfigured: it ended, or does not answer in time; with the end of its log.

        """
        deadline = time.monotonic() + timeout_s
        with self.client() as http:
            while self.alive and time.monotonic() < deadline:
                if self._listens() and http.get("/health").is_success:
                    return
                time.sleep(0.5)
        said = self.last_words()
        self.close()
        raise Misconfigured(
            f"vLLM did not start: {said}",
            mend="mend what it says, or serve with SLUICE_SERVING_BACKEND=auto",
        )

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            return True

    def close(self) -> None:
        """End the process and all it started."""
        if self.alive:
            self._process.terminate()
        self._process.wait(STOP_WITHIN_S + 5.0)
        self._room.cleanup()


def _words(folder: Path, flags: VllmFlags, dtype: str, slots: int, socket: Path) -> list[str]:
    return [
        "-m",
        "vllm.entrypoints.openai.api_server",
        *("--model", str(folder.resolve()), "--served-model-name", BASE),
        *("--uds", str(socket), "--dtype", dtype, "--max-num-seqs", str(slots)),
        *("--generation-config", "vllm", "--scheduling-policy", "priority"),
        *("--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}'),
        *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
        *flags.argv(),
    ]


def _environment() -> dict[str, str]:
    """Ours, without our modules, and with vLLM kept from calling anybody."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONWARNINGS")}
    return kept | {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
