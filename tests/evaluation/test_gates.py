from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from contracts.evaluation import GateJudged
from contracts.training import Fingerprint
from services.evaluation.gates import g1, g2, g3, g4, g5
from services.evaluation.gates.g2 import AdapterFacts, EngineFacts, Served
from services.evaluation.gates.g5 import BenchmarkItem
from shared.asking import Answer, Scored
from shared.errors import PermanentError
from shared.scoring import Score

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def scored(
    values: Sequence[float], *, invalid: int = 0, text: str = "x", cluster: str = ""
) -> tuple[Scored, ...]:
    return tuple(
        Scored(
            item=f"i{n}",
            cluster=cluster or f"i{n}",
            answer=Answer(
                text=text,
                latency_ms=10.0 + n,
                prompt_tokens=1,
                completion_tokens=1,
                finish_reason="stop",
            ),
            score=Score(value=v, valid=n >= invalid, reason="" if v else "not JSON: x"),
        )
        for n, v in enumerate(values)
    )


def rights(n: int, right: int) -> list[float]:
    return [0.0] * (n - right) + [1.0] * right


@pytest.mark.req("G1")
def test_the_baseline_has_its_profile() -> None:
    verdict = g1.judge(
        scored(rights(40, 10), invalid=20, text="I'm sorry, no"), minimum_items=30, level=0.95
    )
    values = {m.name: m.value for m in verdict.measurements}
    assert verdict.verdict == "passed"
    assert values["base_success"] == 0.25
    assert values["base_validity"] == 0.5
    assert values["base_refusals"] == 1.0
    assert values["base_latency_ms_p50"] == pytest.approx(29.5)


@pytest.mark.req("G1")
def test_too_few_items_are_no_baseline() -> None:
    verdict = g1.judge(scored(rights(10, 5)), minimum_items=30, level=0.95)
    assert (verdict.verdict, verdict.remediation) == ("inconclusive", "more_items")


@pytest.mark.req("G3")
@pytest.mark.req("G11")
@pytest.mark.parametrize(
    ("n", "base", "candidate", "verdict", "remediation"),
    [
        pytest.param(80, 2, 45, "passed", "none", id="a clear gain"),
        pytest.param(80, 40, 44, "inconclusive", "more_items", id="a gain this sample cannot show"),
        pytest.param(80, 40, 20, "failed", "rescope", id="a loss"),
        pytest.param(2000, 1000, 1020, "failed", "retrain", id="a gain below the threshold"),
        pytest.param(0, 0, 0, "inconclusive", "more_items", id="no items"),
    ],
)
def test_the_gain_must_be_shown(
    n: int, base: int, candidate: int, verdict: str, remediation: str
) -> None:
    judged = g3.judge(
        scored(rights(n, base)), scored(rights(n, candidate)), minimum_gain=0.05, level=0.95
    )
    assert (judged.verdict, judged.remediation) == (verdict, remediation)
    if n:
        assert judged.comparisons[0].n == n
        assert judged.comparisons[0].detectable is not None


@pytest.mark.req("G13")
def test_items_of_one_source_are_no_evidence_by_their_number() -> None:
    base, candidate = rights(60, 0), rights(60, 60)
    apart = g3.judge(scored(base), scored(candidate), minimum_gain=0.05, level=0.95)
    mixed = [s for c in "abc" for s in scored([0.0] * 20, cluster=c)]
    better = [
        s for c, v in zip("abc", (1.0, 0.0, 0.0), strict=True) for s in scored([v] * 20, cluster=c)
    ]
    together = g3.judge(mixed, better, minimum_gain=0.05, level=0.95)
    assert apart.verdict == "passed"
    assert together.verdict == "inconclusive"


@pytest.mark.req("G3")
def test_losses_are_shown_before_gains_and_different_items_are_refused() -> None:
    base, candidate = scored([1.0, 0.0, 1.0]), scored([1.0, 1.0, 0.0])
    judged = g3.judge(base, candidate, minimum_gain=0.05, level=0.95)
    assert [(c.item, c.candidate) for c in judged.changed] == [("i2", 0.0), ("i1", 1.0)]
    with pytest.raises(PermanentError, match="same items"):
        g3.judge(base, candidate[::-1], minimum_gain=0.05, level=0.95)


@pytest.mark.req("G4")
@pytest.mark.parametrize(
    ("invalid", "verdict", "remediation"),
    [
        (0, "passed", "none"),
        (8, "inconclusive", "more_items"),
        (40, "failed", "enable_constraints"),
    ],
)
def test_validity_is_judged_without_constraints(
    invalid: int, verdict: str, remediation: str
) -> None:
    values = [0.0] * invalid + [1.0] * (80 - invalid)
    judged = g4.judge(
        scored(values, invalid=80),
        scored(values, invalid=invalid),
        minimum_validity=0.9,
        level=0.95,
    )
    assert (judged.verdict, judged.remediation) == (verdict, remediation)
    assert f"{80 - invalid} of 80" in judged.summary
    assert ("not JSON" in judged.summary) is (invalid > 0)


def benchmark(n: int, right: int) -> list[BenchmarkItem]:
    return [
        BenchmarkItem(task="t", item=str(i), skill=f"s{i % 2}", correct=value)
        for i, value in enumerate(rights(n, right))
    ]


@pytest.mark.req("G5")
@pytest.mark.req("F4")
@pytest.mark.parametrize(
    ("n", "base", "candidate", "verdict", "remediation"),
    [
        pytest.param(720, 400, 398, "passed", "none", id="two items lost of 720"),
        pytest.param(720, 400, 300, "failed", "add_rehearsal", id="forgetting"),
        pytest.param(60, 40, 39, "inconclusive", "more_items", id="too few items"),
    ],
)
def test_decay_is_judged_by_non_inferiority(
    n: int, base: int, candidate: int, verdict: str, remediation: str
) -> None:
    judged = g5.judge(benchmark(n, base), benchmark(n, candidate), maximum_decay=0.02, level=0.95)
    assert (judged.verdict, judged.remediation) == (verdict, remediation)
    assert {m.name for m in judged.measurements} >= {"base:s0", "candidate:s1"}
    if verdict == "inconclusive":
        assert "can show" in judged.summary


def test_two_logs_of_different_items_are_refused() -> None:
    with pytest.raises(PermanentError, match="different items"):
        g5.judge(benchmark(3, 1), benchmark(4, 1), maximum_decay=0.02, level=0.95)


TRAINED = Fingerprint(
    messages=({"role": "user", "content": "hi"},),
    prompt_token_ids=(1, 2, 3),
    top_token_ids=(7, 8),
    top_logprobs=(-0.1, -2.5),
    base_top_logprobs=(-1.0, -0.6),
)
FITS = AdapterFacts(base=DIGEST, tokenizer=DIGEST, rank=16, target_modules=("q_proj",))
ENGINE = EngineFacts(
    base=DIGEST, tokenizer=DIGEST, maximum_rank=64, target_modules=("q_proj", "v_proj")
)


def served(
    candidate: tuple[float, float] = (-0.1, -2.5),
    base: tuple[float, float] = (-1.0, -0.6),
    ids: tuple[int, ...] = (1, 2, 3),
) -> Served:
    return Served(
        prompt_token_ids=ids,
        candidate=dict(zip((7, 8), candidate, strict=True)),
        base=dict(zip((7, 8), base, strict=True)),
    )


@pytest.mark.req("G2")
@pytest.mark.req("F13")
@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        pytest.param(served(), None, id="equal"),
        pytest.param(served(candidate=(-0.12, -2.52)), None, id="within the tolerance"),
        pytest.param(served(ids=(1, 2, 4)), "wrong_template", id="other tokens"),
        pytest.param(served(candidate=(-1.0, -0.6)), "adapter_ignored", id="answers as the base"),
        pytest.param(served((-0.9, -3.0), (-2.0, -0.2)), "wrong_base", id="another base"),
        pytest.param(served(candidate=(-0.5, -1.5)), "module_ignored", id="between the two"),
        pytest.param(served(candidate=(-0.1, math.nan)), "module_ignored", id="not a number"),
    ],
)
def test_the_way_served_differs_from_trained_names_the_cause(
    answer: Served, fault: str | None
) -> None:
    assert g2.fault(TRAINED, answer) == fault
    judged = g2.judge(FITS, ENGINE, [TRAINED], [answer])
    assert judged.verdict == ("passed" if fault is None else "failed")
    assert judged.remediation == ("none" if fault is None else "repair_registry")


@pytest.mark.req("G2")
@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (AdapterFacts(base=OTHER, tokenizer=DIGEST, rank=1, target_modules=()), "trained on base"),
        (AdapterFacts(base=DIGEST, tokenizer=OTHER, rank=1, target_modules=()), "tokenizers"),
        (AdapterFacts(base=DIGEST, tokenizer=DIGEST, rank=65, target_modules=()), "rank 65"),
        (AdapterFacts(base=DIGEST, tokenizer=DIGEST, rank=1, target_modules=("w1",)), "no w1"),
    ],
)
def test_an_adapter_the_engine_cannot_serve_is_refused(facts: AdapterFacts, named: str) -> None:
    judged = g2.judge(facts, ENGINE, [TRAINED], [served()])
    assert judged.verdict == "failed"
    assert named in judged.summary


@pytest.mark.req("G2")
def test_fingerprints_that_do_not_tell_adapter_from_base_prove_nothing() -> None:
    same = TRAINED.model_copy(update={"top_logprobs": TRAINED.base_top_logprobs})
    judged = g2.judge(FITS, ENGINE, [same], [served(candidate=(-1.0, -0.6))])
    assert judged.verdict == "inconclusive"
    assert g2.judge(FITS, ENGINE, [], []).verdict == "inconclusive"


def test_a_judgement_becomes_the_gates_event() -> None:
    judged = g1.judge(scored(rights(40, 10)), minimum_items=30, level=0.95)
    event = judged.event(candidate=DIGEST, evidence=OTHER, duration_s=1.5)
    assert isinstance(event, GateJudged)
    assert event.token() == "g1_judged"
    assert event.measurements == judged.measurements
