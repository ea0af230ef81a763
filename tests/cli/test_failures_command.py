"""`sluice failures`: offline, ranked, and honest about what may be trained on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.failures import FailureReport
from services.cli.main import app
from tests.diagnosis.failures.accuracy import labelled

pytestmark = [pytest.mark.req("D3"), pytest.mark.req("H7")]


def run(*arguments: object):
    return CliRunner().invoke(app, ["failures", *map(str, arguments)], env=dict(os.environ))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "failures.jsonl"
    path.write_text("".join(c.trace.model_dump_json() + "\n" for c in labelled("report")[:30]))
    return path


def test_causes_are_listed_with_share_mend_guardrail_and_evidence(log: Path) -> None:
    done = run(log)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("30 traces\n")
    for line in ("Gap: ", "  do: ", "  guardrail: ", "  evidence: ", "  like: "):
        assert line in done.stdout


def test_json_is_the_published_report_and_says_whether_it_may_train(log: Path) -> None:
    found = json.loads(run(log, "--json").stdout)
    may_train, problems = found.pop("may_train"), found.pop("problems")
    report = FailureReport.model_validate(found)
    assert report.traces == 30
    assert may_train == (report.findings[0].cause == "adaptation") == (not problems)


def test_a_missing_log_is_invalid_input(tmp_path: Path) -> None:
    done = run(tmp_path / "none.jsonl")
    assert done.exit_code == 2
    assert "none.jsonl" in done.stderr
