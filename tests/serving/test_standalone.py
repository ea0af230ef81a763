import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from services.serving.keys import Keys


@pytest.mark.req("V1")
def test_serving_starts_alone_makes_its_keys_and_answers(base, tmp_path, unused_tcp_port):
    process = subprocess.Popen(
        [sys.executable, "-m", "services.serving", "--base", base, "--port", str(unused_tcp_port)],
        env={**os.environ, "SLUICE_HOME": str(tmp_path)},
    )
    url = f"http://127.0.0.1:{unused_tcp_port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{url}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        key = Keys.load_or_create(tmp_path / "keys" / "api.json").key_of("local", "serve")
        answer = httpx.post(
            f"{url}/v1/completions",
            json={"model": "base", "prompt": "yes", "max_tokens": 3, "ignore_eos": True},
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
        )
        assert answer.json()["usage"]["completion_tokens"] == 3
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) in (0, -signal.SIGINT, 130)
