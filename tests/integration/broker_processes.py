"""A broker and a service as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shared.messaging.embedded import binary

ROOT = Path(__file__).parents[2]


def start_server(config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([binary(), "-c", str(config)], stderr=subprocess.DEVNULL)


SERVICE = """
import asyncio
from itertools import pairwise
from pathlib import Path
from contracts.base import Service
from shared.messaging.broker import Bus
from shared.messaging.host import App, serve
from shared.messaging.steps import Steps
from shared.settings import Settings
settings = Settings(home=Path("{home}"), nats_url="{url}")
app = App(Bus(Service.SYNTHESIS, settings))
async def main():
    async with app.running():
        {act}
        await asyncio.sleep(30)
asyncio.run(main())
"""


def start_service(url: str, act: str, home: str = "/nonexistent") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVICE.format(home=home, url=url, act=act)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
