"""`sluice data adjudicate`: what two judges could not decide, decided by a person."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.data import parse_row
from services.cli.main import app
from services.synthesis.judging import Ruling, Vote

pytestmark = pytest.mark.req("S6")


def vote(judge: str, score: float, why: str) -> Vote:
    scores = dict.fromkeys(("logical_consistency", "relevance", "formatting"), score)
    return Vote(judge, scores, {}, why)


def ruling(number: int, verdict: str, *votes: Vote) -> dict[str, object]:
    """A line of the records, as `services.synthesis.generation` writes it."""
    origin = {"model": "teacher-x", "api_version": "1", "temperature": 1.0, "top_p": 0.95,
              "prompt_template": "answer/v1"}  # fmt: skip
    row = {"id": f"syn-{number}", "messages": [{"role": "user", "content": f"question {number}"}],
           "target": f"answer {number}", "origin": origin}  # fmt: skip
    votes_kept = Ruling(verdict, votes).record()
    content = {"content": row} if verdict == "diverged" else {}
    return {"kind": "ruling", "row": f"syn-{number}", "verdict": verdict, "votes": votes_kept,
            **content}  # fmt: skip


@pytest.fixture
def records(tmp_path: Path) -> Path:
    lines = [{"kind": "calibration", "judge": "a", "kappa": 1.0, "items": 9, "may_vote": True},
             ruling(0, "accepted", vote("a", 5, "fine"), vote("b", 5, "fine"))]  # fmt: skip
    lines += [ruling(n, "diverged", vote("judge-strict", 2, "it is wrong"),
                     vote("judge-mild", 4.5, "it is right")) for n in (1, 2, 3)]  # fmt: skip
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def adjudicate(*arguments: object, answers: str = ""):
    command = ["data", "adjudicate", *map(str, arguments)]
    return CliRunner().invoke(app, command, input=answers, env=dict(os.environ))


def test_a_person_decides_blind_and_goes_on_where_they_stopped(records: Path) -> None:
    out, gold = records.parent / "rows.jsonl", records.parent / "gold.jsonl"
    first = adjudicate(records, "--by", "eve", "--out", out, answers="1\nq\n")
    assert first.exit_code == 0, first.output
    assert "it is wrong" in first.output
    assert "it is right" in first.output
    for hidden in ("teacher-x", "syn-1"):
        assert hidden not in first.output
    shown = first.output.split("a judge:")[0]
    assert "judge-strict" not in shown
    assert "1 of 3 rows accepted, 0 rejected, 2 open" in first.output
    again = adjudicate(
        records, "--by", "ada", "--out", out, "--gold", gold, "--json", answers="reject\n1\n"
    )
    assert "question 1" not in again.output
    found = json.loads(again.stdout[again.stdout.index("{") :])
    assert (found["accepted"], found["rejected"], found["open"]) == (2, 1, 0)
    assert found["sided_with"] == {
        "judge-strict": {"rows": 1, "of": 3}, "judge-mild": {"rows": 2, "of": 3},
    }  # fmt: skip
    rows = [parse_row(line) for line in out.read_bytes().splitlines()]
    assert [(r.id, r.meta["adjudicated_by"]) for r in rows] == [("syn-1", "eve"), ("syn-3", "ada")]
    assert rows[0].origin is not None
    assert [v["judge"] for v in rows[0].meta["judges"]] == ["judge-strict", "judge-mild"]
    labels = [parse_row(line).expected for line in gold.read_bytes().splitlines()]
    assert labels == [{"accept": True}, {"accept": False}, {"accept": True}]


@pytest.mark.parametrize("content", ["nonsense\n", '{"kind": "ruling"}\n'])
def test_a_file_that_holds_no_records_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    done = adjudicate(path, "--by", "eve")
    assert done.exit_code == 2
    assert "records:1" in done.output
    assert adjudicate().exit_code == 2
