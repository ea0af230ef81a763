"""`sluice data`: a dataset without a run, and the story of each row in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from contracts.base import digest_of
from contracts.subjects import feedback as feedback_subject
from contracts.telemetry import Feedback, Interaction
from services.cli.main import app
from tests.curation.samples import clean_rows, jsonl, row


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    rows = [
        *clean_rows(20),
        {**clean_rows(1)[0], "id": "copy"},
        row("mail", "Write to jane.roe@example.com"),
        row("leak", "Find the leaked item of the set"),
    ]
    (tmp_path / "train.jsonl").write_bytes(jsonl(rows))
    held = [{**row("h", "Find the leaked item of the set"), "expected": {"f": {}}}]
    (tmp_path / "heldout.jsonl").write_bytes(jsonl(held))
    dev = [{**r, "expected": {}} for r in clean_rows(1, "d", 90)]
    (tmp_path / "dev.jsonl").write_bytes(jsonl(dev))
    job = {
        "schema": "sluice.job/v1", "name": "j", "tenant": "acme", "task_namespace": "calls",
        "base": {"model": "m"},
        "behaviour": {"description": "d", "scorer": "tool_call", "target": 0.9},
        "data": [{"uri": "train.jsonl", "licence": "MIT", "provenance": {"source": "t"}}],
        "evaluation": {"dev": {"uri": "dev.jsonl", "licence": "MIT"},
                       "heldout": {"uri": "heldout.jsonl", "licence": "MIT"}},
        "rollout": {"deployment": "d"},
    }  # fmt: skip
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def sluice(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)], env=dict(os.environ))


@pytest.mark.req("C4", "C8")
def test_a_spec_is_curated_alone_and_every_row_can_be_explained(spec: Path) -> None:
    out = spec.parent / "dataset"
    done = sluice("data", "curate", spec, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert sum(found["rows"].values()) == 21
    assert digest_of((out / "card.json").read_bytes()) == found["dataset"]
    assert "| redaction |" in (out / "card.md").read_text()
    told = {
        name: sluice("data", "explain", name, "--data", out).stdout
        for name in ("copy", "mail", "leak", "r3", "train.jsonl:3")
    }
    assert "dropped by exact_duplicates: exact_duplicate (of r1)" in told["copy"]
    assert "redacted EMAIL in messages[0].content at 9, 20 long" in told["mail"]
    assert "jane" not in told["mail"]
    assert "dropped by contamination: heldout:exact (is h)" in told["leak"]
    assert told["r3"] == told["train.jsonl:3"]
    assert "train.jsonl:3, role positive" in told["r3"]
    as_json = json.loads(sluice("data", "explain", "mail", "--data", out, "--json").stdout)
    assert as_json["redactions"][0]["type"] == "EMAIL"
    missing = sluice("data", "explain", "nobody", "--data", out)
    assert missing.exit_code == 2


@pytest.mark.req("C4")
def test_data_that_must_not_be_trained_on_ends_with_its_problems(spec: Path) -> None:
    spec.write_text(spec.read_text().replace("licence: MIT", "licence: GPL-3.0-only", 1))
    done = sluice("data", "curate", spec, "--out", spec.parent / "d")
    assert done.exit_code == 3
    assert "incompatible licence" in done.output
    assert not (spec.parent / "d").exists()


async def test_feedback_is_taken_from_the_broker_where_no_file_is_given(js, sluice, tmp_path):
    for tenant, request in (("acme", "r1"), ("other", "r2")):
        given = Feedback(request_id=request, tenant=tenant, deployment="d", model="m",
                         kind="accepted", at=1.0)  # fmt: skip
        await js.publish(feedback_subject(tenant, "d"), given.model_dump_json().encode())
    log = tmp_path / "log.jsonl"
    log.write_text(
        "".join(
            Interaction(request_id=r, tenant="acme", answer="a", consent=True,
                        messages=({"role": "user", "content": r},)).model_dump_json() + "\n"
            for r in ("r1", "r2")
        )
    )  # fmt: skip
    out = tmp_path / "rows.jsonl"
    done = await sluice("data", "feedback", log, "--out", out, "--tenant", "acme", "--json")
    assert done.code == 0, done.err
    assert done.json["rows"] == {"desirable": 1}
    assert done.json["left_out"] == {"no_feedback": 1}
