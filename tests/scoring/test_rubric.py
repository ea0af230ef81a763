"""A judge behind a real OpenAI-compatible endpoint: calibrated first, cached, and never guessed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.data import Message, Row
from contracts.governance import Judge
from contracts.job import Behaviour
from contracts.rubric import GoldAnswer, Rubric
from shared.errors import InvalidInput, PeerUnavailable, PermanentError
from shared.scoring import Scorer, resolve
from shared.scoring.rubric import RubricJudge

ROW = Row(id="r", messages=(Message(role="user", content="Greet Ada."),))
GOLD = tuple(
    GoldAnswer(
        request=f"Greet {n}.", answer=f"{'Dear' if n % 2 else 'Oi'} {n}", accepted=n % 2 == 1
    )
    for n in range(10)
)


@dataclass
class Bench:
    """A judge that likes what `likes` is in, and counts what it is asked."""

    url: str = ""
    likes: str = "Dear"
    says: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def bench() -> Iterator[Bench]:
    state = Bench()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(body)
            answer = body["messages"][-1]["content"].partition("<answer>")[2]
            score = {"reason": "as the rubric says", "score": 5 if state.likes in answer else 2}
            text = json.dumps(score) if state.says is None else state.says
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            content = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge"}
            sent = json.dumps({**content, "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def rubric(url: str, **more: object) -> Rubric:
    judge = Judge(model="judge", url=url)
    return Rubric.model_validate({"text": "Polite.", "judge": judge, "gold": GOLD, **more})


def scorer(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    monkeypatch.setenv("SLUICE_HOME", str(home))
    behaviour = Behaviour(description="d", scorer="rubric", target=0.5, rubric=rubric(url))
    return resolve(behaviour)


@pytest.mark.req("G3")
def test_a_calibrated_judge_scores_and_is_paid_for_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = scorer(bench.url, tmp_path, monkeypatch)
    assert bench.asked == []  # a job that is only read asks nobody
    polite, rude = score(ROW, "Dear Ada"), score(ROW, "Oi Ada")
    assert (polite.value, polite.valid) == (1.0, True)
    assert (rude.value, rude.valid) == (0.0, True)
    assert rude.reason == "2 of 5: as the rubric says"
    assert len(bench.asked) == len(GOLD) + 2
    assert all(asked["temperature"] == 0 for asked in bench.asked)
    again = scorer(bench.url, tmp_path, monkeypatch)
    assert again(ROW, "Dear Ada").value == 1.0
    assert len(bench.asked) == len(GOLD) + 2
    assert not again(ROW, "  ").valid


@pytest.mark.req("G3")
def test_a_judge_that_does_not_judge_as_people_do_scores_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    bench.likes = "1"  # the number 1 in an answer, whatever its manners
    with pytest.raises(InvalidInput) as refused:
        RubricJudge(rubric(bench.url), kept=tmp_path)(ROW, "Dear Ada")
    assert "agrees with people by kappa 0.20 on 10 answers" in refused.value.problems[0].problem


def test_a_judge_that_gives_no_score_is_an_error_and_is_asked_again(
    bench: Bench, tmp_path: Path
) -> None:
    for said in ("I like it", '{"score": 9}', "[]"):
        bench.says = said
        with pytest.raises(PermanentError, match="no score for gold"):
            RubricJudge(rubric(bench.url), kept=tmp_path)(ROW, "Dear Ada")
    bench.says = None
    assert RubricJudge(rubric(bench.url), kept=tmp_path)(ROW, "Dear Ada").value == 1.0


def test_a_judge_out_of_reach_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_: 0.0)
    with pytest.raises(PeerUnavailable):
        RubricJudge(rubric("http://127.0.0.1:9/v1"), kept=tmp_path)(ROW, "Dear Ada")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"judge": Judge(model="base")}, "no judge of itself", id="our own base"),
        pytest.param({"gold": [g for g in GOLD * 2 if g.accepted]}, "others", id="all accepted"),
        pytest.param({"gold": GOLD[:9]}, "at least 10", id="too few"),
    ],
)
def test_a_rubric_without_evidence_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        rubric("http://judge/v1", **changes)


def test_rubric_and_scorer_go_together() -> None:
    with pytest.raises(ValidationError, match="needs `rubric`"):
        Behaviour(description="d", scorer="rubric", target=0.5)
