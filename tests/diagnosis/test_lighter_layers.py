"""Retrieval, routing and the larger base: what they show the model, and what they spend."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.data import Document, Message
from contracts.diagnosis import RungSkipped
from services.diagnosis.checks import document_problems, job_problems
from services.diagnosis.retrieval import Index
from services.diagnosis.routing import routed
from services.diagnosis.rungs import trials
from services.diagnosis.verdict import MeasuredRung, measured_rung
from shared.asking import Scored
from tests.diagnosis.jobs import job, row, scored

CORPUS = (
    Document(id="returns", text="Goods may be returned within 30 days, with the receipt."),
    Document(id="delivery", text="Delivery of goods takes three days."),
    Document(id="café", text="The café opens at nine."),
)


@pytest.mark.req("D4")
@pytest.mark.parametrize(
    ("request_", "found"),
    [
        ("Can I return goods without a receipt?", ["returns", "delivery"]),
        ("When does the CAFE open?", ["café", "returns"]),
        ('delivery" OR text:goods NEAR(', ["delivery", "returns"]),
        ("xyzzy", []),
        ("?!", []),
    ],
)
def test_documents_are_ranked_by_the_words_they_share(request_: str, found: list[str]) -> None:
    assert [document.id for document in Index(CORPUS).search(request_, 2)] == found


def test_a_rare_word_outweighs_a_common_one() -> None:
    many = [Document(id=f"d{n}", text="goods and more goods") for n in range(8)]
    found = Index([*many, Document(id="rare", text="goods under warranty")])
    assert found.search("goods warranty", 1)[0].id == "rare"
    assert [d.id for d in found.search("and", 3)] == ["d0", "d1", "d2"]


@pytest.mark.req("D4")
def test_retrieval_shows_the_documents_ahead_of_the_last_user_turn_only() -> None:
    asked = row("q").model_copy(
        update={
            "messages": (
                Message(role="user", content="café?"),
                Message(role="assistant", content="yes"),
                Message(role="user", content="And delivery?"),
            )
        }
    )
    shown = Index(CORPUS).shown(asked, 1)
    assert shown.messages[:2] == asked.messages[:2]
    assert "[delivery] Delivery of goods" in shown.messages[2].content
    assert shown.messages[2].content.endswith("And delivery?")
    assert Index(CORPUS).shown(row("xyzzy"), 1) == row("xyzzy")


@pytest.mark.req("D4")
def test_rungs_run_where_the_job_names_what_they_need() -> None:
    named = job(
        ladder={"corpus": {"uri": "corpus", "passages": 1}, "larger_base": {"model": "big"}}
    )
    run, skipped = trials(named, [], [row("d")], CORPUS)
    ways = {trial.rung: trial.ways for trial in run}
    assert {"retrieval", "model_selection"} <= ways.keys()
    rewrite = ways["retrieval"][0].rewrite
    assert rewrite is not None
    receipt = row("receipt")
    assert "[returns]" in rewrite(receipt).messages[0].content
    assert not {"retrieval", "model_selection"} & {s.rung for s in skipped}


@pytest.mark.req("D9")
@pytest.mark.req("H2")
@pytest.mark.parametrize(
    ("ladder", "said"),
    [({"model_decision": "MDR 7: phones only"}, "MDR 7: phones only"), ({}, "nor why it wants")],
)
def test_an_upgrade_of_the_base_that_is_not_measured_leaves_its_reason(
    ladder: dict[str, str], said: str
) -> None:
    _, skipped = trials(job(ladder=ladder), [], [row("d")])
    assert said in {s.rung: s.reason for s in skipped}["model_selection"]


def answers(texts: list[str], values: list[float], tokens: int) -> list[Scored]:
    return [
        replace(s, answer=replace(s.answer, text=text))
        for s, text in zip(scored(values, tokens, 10), texts, strict=True)
    ]


@pytest.mark.req("D4")
def test_the_router_sends_on_what_the_validator_refuses_and_pays_for_both() -> None:
    asked = job(behaviour__output_schema={"type": "integer"}, economics__price_per_mtok=1.0)
    rows = [row("a"), row("b"), row("c")]
    base = answers(["1", "oops", "2"], [1.0, 0.0, 0.0], 10)
    big = measured_rung(
        "model_selection", [""], [answers(["9", "9", "9"], [0.0, 1.0, 1.0], 20)], 100.0
    )
    found = routed(asked, rows, base, big)
    assert isinstance(found, MeasuredRung)
    assert [s.answer.text for s in found.scored] == ["1", "9", "2"]
    assert [s.value for s in found.scored] == [1.0, 1.0, 0.0]
    assert [s.answer.prompt_tokens for s in found.scored] == [10, 30, 10]
    assert [s.answer.latency_ms for s in found.scored] == [10, 20, 10]
    assert found.costs == pytest.approx([11e-6, 11e-6 + 21e-4, 11e-6])


@pytest.mark.req("D4")
def test_without_a_second_model_or_a_validator_there_is_no_router_and_it_says_so() -> None:
    rows, base = [row("a")], answers(["1"], [1.0], 10)
    schema = job(behaviour__output_schema={"type": "integer"})
    alone = routed(schema, rows, base, None)
    assert isinstance(alone, RungSkipped)
    assert "no second model" in alone.reason
    blind = routed(job(), rows, base, measured_rung("model_selection", [""], [base]))
    assert isinstance(blind, RungSkipped)
    assert "nothing says which answers" in blind.reason


def test_a_corpus_that_is_malformed_empty_or_an_evaluation_set_is_refused() -> None:
    assert document_problems("ladder.corpus.uri", b'{"id": "a", "text": "b"}\n') == ()
    for content in (b"", b"\n", b'{"id": "a"}', b"{"):
        (problem,) = document_problems("ladder.corpus.uri", content)
        assert problem.mend
    own = job(ladder={"corpus": {"uri": "c"}})
    assert [p.where for p in job_problems(own, tenant="demo")] == ["ladder.corpus"]
