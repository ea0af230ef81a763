from __future__ import annotations

from collections.abc import Sequence

import pytest

from contracts.data import Message, Row
from contracts.job import GatePolicy
from services.evaluation.gates import g12
from services.evaluation.suites import elsewhere
from shared.asking import Answer, Scored
from shared.scoring import Score


def scored(values: Sequence[float]) -> list[Scored]:
    answer = Answer(
        text="x", latency_ms=1.0, prompt_tokens=1, completion_tokens=1, finish_reason="stop"
    )
    return [
        Scored(item=f"i{n}", cluster=f"i{n}", answer=answer, score=Score(value=v, valid=True))
        for n, v in enumerate(values)
    ]


@pytest.mark.req("G12")
@pytest.mark.parametrize(
    ("plain", "perturbed", "verdict", "remediation"),
    [
        pytest.param(60, 58, "passed", "none", id="the twin that learned the task"),
        pytest.param(60, 2, "failed", "vary_prompts", id="only the template was learned"),
        pytest.param(60, 31, "inconclusive", "more_items", id="about half remains"),
        pytest.param(0, 0, "inconclusive", "more_items", id="no success to keep"),
    ],
)
def test_success_must_outlive_its_wording(
    plain: int, perturbed: int, verdict: str, remediation: str
) -> None:
    before = scored([1.0] * plain + [0.0] * (80 - plain))
    after = scored([1.0] * perturbed + [0.0] * (80 - perturbed))
    judged = g12.judge(before, after, minimum_retained=0.5, level=0.95)
    assert (judged.verdict, judged.remediation) == (verdict, remediation)
    assert bool(judged.changed) is (verdict != "passed" and plain != perturbed)


@pytest.mark.req("G12")
def test_every_dress_keeps_the_request_and_everything_else() -> None:
    rows = [
        Row(
            id=f"r{n}",
            messages=(
                Message(role="system", content="Be brief."),
                Message(role="user", content="Add 2 and 3."),
            ),
            expected="5",
        )
        for n in range(len(g12.DRESSES))
    ]
    dressed = g12.dressed(rows)
    assert len({row.messages[-1].content for row in dressed}) == len(g12.DRESSES)
    for row, other in zip(rows, dressed, strict=True):
        assert "Add 2 and 3." in other.messages[-1].content != row.messages[-1].content
        assert other.messages[:-1] == row.messages[:-1]
        assert (other.id, other.expected) == (row.id, row.expected)


@pytest.mark.req("G12")
def test_tunnel_vision_and_overconfidence_are_measured_against_the_base() -> None:
    judged = g12.judge(
        scored([1.0] * 40),
        scored([1.0] * 40),
        minimum_retained=0.5,
        level=0.95,
        unseen=([1.0] * 12, [0.0] * 12),
        premises=([1.0] * 12, [0.0] * 12),
    )
    drops = {c.metric: c.difference for c in judged.comparisons}
    assert drops == {"success_in_other_words": 0.0, "unseen_domains": -1.0, "false_premises": -1.0}


@pytest.mark.parametrize(
    ("answer", "objected"),
    [
        ("There is no eighth day.", True),
        ("The moon didn\u2019t crash.", True),
        ("It was in 1812.", False),
    ],
)
def test_an_objection_is_told_by_its_words(answer: str, objected: bool) -> None:
    assert elsewhere.objects(answer) is objected


def test_an_expected_word_is_a_whole_word() -> None:
    spider = next(r for r in elsewhere.unseen_domains() if "spider" in r.messages[0].content)
    assert elsewhere.answers_right(spider, "It has 8 legs.")
    assert not elsewhere.answers_right(spider, "It has 18 legs.")


def test_only_late_gates_may_be_inconclusive() -> None:
    policy = GatePolicy(accept_inconclusive=("G6",))
    assert policy.accepts("G6", "inconclusive")
    assert not policy.accepts("G6", "failed")
    assert not policy.accepts("G12", "inconclusive")
    with pytest.raises(ValueError, match="must be conclusive"):
        GatePolicy(accept_inconclusive=("G3",))
