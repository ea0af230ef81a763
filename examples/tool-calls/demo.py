"""The main job from start to end, with nothing but the `sluice` command and a plain HTTP client.

Starts the embedded stack, submits `job.yaml`, replays held-out requests as live traffic once the
deployment exists, watches the run to its end, and verifies the card offline. `make demo` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
DEPLOYMENT = "tool-calls"
TENANT = "demo"


def sluice(home: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run one `sluice` command against the stack under `home`."""
    command = [str(Path(sys.executable).parent / "sluice"), *words]
    return subprocess.run(command, env=environment(home), text=True, **options)  # noqa: PLW1510


def environment(home: Path) -> dict[str, str]:
    own = {"SLUICE_HOME": str(home), "SLUICE_TENANT": TENANT}
    # The demo's traffic never lets the engine rest, and its shadow stage should not take an hour.
    return {**os.environ, **own, "SLUICE_SERVING_SHADOW_SHARE": "0.5"}


def start(home: Path) -> subprocess.Popen[str]:
    """`sluice up`, ready."""
    ready = home / "ready"
    ready.unlink(missing_ok=True)
    up = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "sluice"),
            *("up", "--home", str(home), "--base", "smollm2-135m-instruct"),
            *("--ready-file", str(ready)),
        ],
        env=environment(home),
        text=True,
    )
    while not ready.exists():
        if up.poll() is not None:
            sys.exit(f"demo: `sluice up` ended with {up.returncode}; logs under {home / 'logs'}")
        time.sleep(0.2)
    return up


def drive_traffic(home: Path) -> subprocess.Popen[str]:
    """Replay held-out requests for as long as the demo runs."""
    key = json.loads((home / "keys" / "client.json").read_text())[TENANT]
    log = (home / "logs" / "traffic.log").open("w")
    return subprocess.Popen(
        [
            *(sys.executable, str(HERE / "traffic.py"), str(HERE / "data" / "traffic.jsonl")),
            *("--deployment", DEPLOYMENT, "--key", key, "--concurrency", "16"),
        ],
        stdout=log,
        stderr=log,
        text=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".sluice"))
    home = parser.parse_args().home.resolve()
    (home / "logs").mkdir(parents=True, exist_ok=True)
    run = f"tool-calls-{time.strftime('%m%d-%H%M%S')}"
    began = time.monotonic()
    up = start(home)
    traffic = drive_traffic(home)
    try:
        watched = sluice(home, "submit", str(HERE / "job.yaml"), "--run", run, "--watch")
        if watched.returncode != 0:
            sluice(home, "show", run)
            print(f"demo: the run ended without promotion (exit {watched.returncode})")
            return watched.returncode
        sluice(home, "show", run, check=True)
        folder = home / "cards" / run
        shutil.rmtree(folder, ignore_errors=True)
        sluice(home, "card", run, "--out", str(folder), check=True)
        key = home / "keys" / "registry" / "signing-key.pub"
        sluice(home, "verify", str(folder), "--key", str(key), check=True)
        story = json.loads(
            sluice(home, "show", run, "--json", capture_output=True, check=True).stdout
        )
        print(f"demo: {time.monotonic() - began:.0f} s from start to promotion")
        print(f"demo: promoted {story['adapter_id']}, card at {folder}")
        return 0
    finally:
        for process in (traffic, up):
            process.send_signal(signal.SIGTERM)
        for process in (traffic, up):
            process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
