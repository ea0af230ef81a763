"""Feedback becomes rows only with consent, of one tenant, and redacted."""

import json
import os

import pytest
from typer.testing import CliRunner

from contracts.data import parse_row
from contracts.telemetry import Feedback, Interaction
from services.cli.main import app
from services.curation.feedback import harvest
from services.curation.pipeline import Curated
from services.curation.reading import SourceFile
from services.curation.snapshot import rows_bytes
from tests.curation.samples import curate

pytestmark = pytest.mark.req("C3")


def told(request: str, *kinds: str, tenant: str = "acme") -> list[Feedback]:
    return [
        Feedback(request_id=request, tenant=tenant, deployment="d", model="m", kind=kind, at=1.0)
        for kind in kinds
    ]


def logged(request: str, **more) -> Interaction:
    return Interaction(
        **{"request_id": request, "tenant": "acme", "consent": True, "answer": f"answer {request}",
           "messages": [{"role": "user", "content": f"question {request}"}]} | more
    )  # fmt: skip


CASES = (
    (logged("up"), told("up", "accepted"), True),
    (logged("down"), told("down", "rejected"), False),
    (logged("over"), told("over", "override"), False),
    (logged("refused"), told("refused", "false_refusal"), False),
    (logged("unsafe"), told("unsafe", "safety_incident", "rejected"), False),
    (logged("fixed", correction="better"), told("fixed", "correction"), ("better", "answer fixed")),
    (logged("edited", correction="mine"), told("edited", "override"), ("mine", "answer edited")),
    (logged("secretive", consent=False), told("secretive", "accepted"), "no_consent"),
    (logged("theirs", tenant="other"), told("theirs", "accepted"), "interaction_of_another_tenant"),
    (logged("spoofed"), told("spoofed", "accepted", tenant="other"), "no_feedback"),
    (logged("silent"), [], "no_feedback"),
    (logged("both"), told("both", "accepted", "rejected"), "contradictory_feedback"),
    (logged("lost"), told("lost", "correction"), "correction_without_its_text"),
    (logged("same", correction="answer same"), told("same", "correction"),
     "correction_changes_nothing"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("one", "feedback", "expected"), CASES, ids=lambda c: getattr(c, "request_id", "")
)
def test_each_kind_of_feedback_becomes_what_it_means(detector, one, feedback, expected):
    found = harvest("acme", [one], feedback, detector)
    if isinstance(expected, str):
        assert found.rows == ()
        assert found.left_out[expected] == 1
        return
    [row] = found.rows
    if isinstance(expected, tuple):
        assert (row.target, row.rejected) == expected
        assert row.desirable is None
    else:
        assert (row.target, row.desirable) == (one.answer, expected)


def test_personal_data_and_the_persons_name_stay_behind(detector):
    log = [
        logged(f"r{i}", user="jane.roe@example.com", answer="Write to jane.roe@example.com")
        for i in range(2)
    ]
    found = harvest("acme", log, [*told("r0", "accepted"), *told("r1", "rejected")], detector)
    assert b"jane" not in rows_bytes(found.rows)
    assert found.rows[0].group == found.rows[1].group
    assert found.rows[0].target == "Write to <EMAIL>"
    assert found.redacted == {"redacted:EMAIL": 2}
    other = harvest("acme", [logged("r0", user="ola")], told("r0", "accepted"), detector)
    assert other.rows[0].group != found.rows[0].group


def test_rows_of_feedback_go_through_curation_as_the_tenants_own(job, detector):
    log, feedback = [c[0] for c in CASES], [f for c in CASES for f in c[1]]
    content = rows_bytes(harvest("acme", log, feedback, detector).rows)
    source = {"uri": "f.jsonl", "licence": "proprietary:acme", "provenance": {"source": "feedback"}}
    done = curate(job(data=[source]), [SourceFile(file="f.jsonl", content=content)], {}, detector)
    assert isinstance(done, Curated)
    assert sum(done.rows.values()) == 7


def test_the_command_joins_two_files(tmp_path):
    log, given, out = (tmp_path / n for n in ("log.jsonl", "feedback.jsonl", "rows.jsonl"))
    log.write_text("".join(c[0].model_dump_json() + "\n" for c in CASES))
    given.write_text("".join(f.model_dump_json() + "\n" for c in CASES for f in c[1]))
    command = ["data", "feedback", str(log), "--feedback", str(given), "--out", str(out),
               "--tenant", "acme", "--json"]  # fmt: skip
    done = CliRunner().invoke(app, command, env=dict(os.environ))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["rows"] == {"desirable": 1, "pair": 2, "undesirable": 4}
    assert report["left_out"]["no_consent"] == 1
    assert len([parse_row(line) for line in out.read_bytes().splitlines()]) == 7
    given.write_text("{}\n")
    assert CliRunner().invoke(app, command, env=dict(os.environ)).exit_code == 2
