"""A load tool nobody here wrote (GuideLLM) drives the server as it drives any other."""

import json
import os
import subprocess

import pytest

from contracts.registry import AdapterPromoted
from tests.serving.test_arms import rollout
from tests.serving.test_directory import DIGEST, fact

PYTHON = os.environ.get("SLUICE_TEST_GUIDELLM", "")
ADAPTER = "tiny-loaded-v1"
REQUESTS, TOKENS = 6, 8


@pytest.mark.req("V1")
@pytest.mark.skipif(not PYTHON, reason="make test-load")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("route", ["chat/completions", "completions"])
def test_guidellm_asks_an_adapter_by_its_name_and_counts_what_was_answered(
    server, base, route, stream, tmp_path
):
    rollout(server, "loaded", name=ADAPTER)
    promoted = AdapterPromoted(adapter_id=ADAPTER, deployment="loaded", bundle=DIGEST)
    server.directory.apply(fact(promoted, seq=10**6, run="loaded"))
    asked = {"target": server.url, "model": ADAPTER, "api_key": "sk-acme"}
    asked |= {"request_format": f"/v1/{route}", "stream": str(stream).lower()}
    done = subprocess.run(
        [
            PYTHON,
            *("-m", "guidellm", "run", "--disable-console"),
            *("--backend", "kind=openai_http," + ",".join(f"{k}={v}" for k, v in asked.items())),
            *("--tokenizer", f"kind=hf_auto,model={base}"),
            *("--data", f"kind=synthetic_text,prompt_tokens=24,output_tokens={TOKENS}"),
            *("--profile", "kind=concurrent,streams=2"),
            *("--constraint", f"kind=max_requests,count={REQUESTS}"),
            *("--output", f"kind=json,path={tmp_path / 'report.json'}"),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    totals = found["metrics"]["request_totals"]
    assert totals == {"successful": REQUESTS, "errored": 0, "incomplete": 0, "total": REQUESTS}
    written = found["metrics"]["output_token_count"]["successful"]
    assert (written["min"], written["max"]) == (TOKENS, TOKENS)  # `ignore_eos`, and our own counts
    assert found["metrics"]["prompt_token_count"]["successful"]["min"] >= 24
    if stream:
        assert found["metrics"]["time_to_first_token_ms"]["successful"]["min"] > 0
    outcomes = server.wait_outcomes(REQUESTS)
    assert {(one.model, one.error, one.completion_tokens) for one in outcomes} == {
        (ADAPTER, None, TOKENS)
    }
