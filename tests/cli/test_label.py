"""`sluice label`: double-blind, resumable, and halted by disagreement."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.main import app

pytestmark = pytest.mark.req("C2")


def label(*arguments: object, answers: str = ""):
    return CliRunner().invoke(
        app, ["label", *map(str, arguments)], input=answers, env=dict(os.environ)
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "id": f"secret-name-{i}",
                    "messages": [{"role": "user", "content": f"question {i}"}],
                    "target": f"answer {i}",
                    "meta": {"from": "teacher-x"},
                }
            )
            + "\n"
            for i in range(30)
        )
    )
    return path


def test_a_rater_sees_no_origin_and_no_other_label_and_goes_on_where_they_stopped(rows):
    first = label(rows, "--rater", "ana", answers="1\n2\nq\n")
    assert first.exit_code == 0
    assert "question" in first.output
    for hidden in ("secret-name", "teacher-x", "raters said"):
        assert hidden not in first.output
    again = label(rows, "--rater", "ana", answers="1\nq\n")
    seen = [text.split("\n")[0] for text in again.output.split("user: ")[1:]]
    assert not set(seen) & {t.split("\n")[0] for t in first.output.split("user: ")[1:3]}
    kept = (rows.parent / "rows.jsonl.labels" / "round-1" / "ana.jsonl").read_text()
    assert len(kept.splitlines()) == 3


def test_an_expert_who_did_not_vote_settles_disputes_without_names(rows):
    for rater, said in (("ana", "1\n" * 30), ("ben", "1\n" * 29 + "2\n")):
        label(rows, "--rater", rater, answers=said)
    refused = label(rows, "--rater", "ana", "--adjudicate")
    assert refused.exit_code == 2
    done = label(rows, "--rater", "eve", "--adjudicate", "--json", "--minimum-kappa", 0,
                 "--write", rows.parent / "all.jsonl", answers="reject\n")  # fmt: skip
    assert "raters said: keep, reject" in done.output
    assert "ben" not in done.output.split("{")[0]
    report = json.loads(done.output.splitlines()[-1])
    assert report["undecided"] == {"label": []}
    given = [json.loads(line) for line in (rows.parent / "all.jsonl").read_text().splitlines()]
    assert sum(a["adjudication"] for a in given) == 1


def test_disagreement_stops_collection_until_the_next_round(rows):
    label(rows, "--rater", "ana", answers="1\n2\n" * 15)
    stopped = label(rows, "--rater", "ben", answers="2\n1\n" * 15)
    assert stopped.exit_code == 3
    assert "begin the next --round" in stopped.output
    kept = (rows.parent / "rows.jsonl.labels" / "round-1" / "ben.jsonl").read_text()
    assert len(kept.splitlines()) == 20
    assert label(rows, "--rater", "ben", "--round", 2, answers="q\n").exit_code == 0


def test_who_was_shown_labels_votes_on_those_rows_in_no_round(rows):
    for rater, said in (("ana", "1\n" * 30), ("ben", "1\n" * 29 + "2\n")):
        label(rows, "--rater", rater, answers=said)
    looked = label(rows, "--rater", "eve", "--adjudicate", "--minimum-kappa", 0, answers="q\n")
    assert "raters said: keep, reject" in looked.output
    for round_number in (1, 2):
        refused = label(rows, "--rater", "eve", "--round", round_number, answers="1\nq\n")
        assert refused.exit_code == 2
        assert "what others said of 1 of these rows" in str(refused.output)
    labels = rows.parent / "rows.jsonl.labels"
    assert sorted(path.name for path in labels.rglob("*.jsonl")) == ["ana.jsonl", "ben.jsonl"]
    assert label(rows, "--rater", "dan", "--round", 2, answers="1\nq\n").exit_code == 0
    again = label(rows, "--rater", "eve", "--adjudicate", "--minimum-kappa", 0, answers="2\n")
    assert again.exit_code == 0
    assert "1 disputes open" not in again.output


def test_an_expert_of_an_older_version_who_decided_a_row_votes_on_it_no_more(rows):
    for rater, said in (("ana", "1\n" * 30), ("ben", "1\n" * 29 + "2\n")):
        label(rows, "--rater", rater, answers=said)
    label(rows, "--rater", "eve", "--adjudicate", "--minimum-kappa", 0, answers="2\n")
    (rows.parent / "rows.jsonl.labels" / "round-1" / "eve.seen").unlink()
    assert label(rows, "--rater", "eve", answers="1\nq\n").exit_code == 2
