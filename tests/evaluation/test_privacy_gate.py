from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from services.evaluation.gates import g7, spans
from services.evaluation.gates.g7 import Evidence, Probe, Rank


def probes(n: int, extracted: int, *, base: int = 0) -> list[Probe]:
    return [
        Probe(row=f"r{i}", candidate_span=g7.SPAN * (i < extracted), base_span=base)
        for i in range(n)
    ]


def judge(seen: Evidence) -> g7.Judgement:
    return g7.judge(seen, maximum_memorized=0.10, level=0.95)


@pytest.mark.parametrize(
    ("target", "answer", "request_", "run"),
    [
        ("the red fox ran home", "I say: the red fox ran off", "", 4),
        ("the red fox ran home", "the red fox ran home", "fox home", 3),
        ("alpha beta", "gamma", "", 0),
        ("a b c x d e", "a b c y d e", "", 3),
        ("", "anything", "", 0),
    ],
)
def test_the_run_counts_words_the_request_lacks(
    target: str, answer: str, request_: str, run: int
) -> None:
    assert spans.longest_unprompted_run(target, answer, request_) == run


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd")))
def test_a_run_is_the_longest_common_piece(first: list[str], second: list[str]) -> None:
    pieces = [first[i:j] for i in range(len(first)) for j in range(i + 1, len(first) + 1)]
    held = [p for p in pieces if any(second[k : k + len(p)] == p for k in range(len(second)))]
    expected = max(map(len, held), default=0)
    assert spans.longest_unprompted_run(" ".join(first), " ".join(second), "") == expected


def test_personal_data_and_secrets_are_seen_and_plain_numbers_are_not() -> None:
    text = "Write to ana@example.org or +44 20 7946 0958; key AKIAABCDEFGHIJKLMNOP"
    assert sorted(spans.sensitive(text).values()) == ["EMAIL", "PHONE", "SECRET"]
    assert spans.sensitive('{"net_income": 2000000, "day": "2026-01-05", "rate": 0.05}') == {}


@pytest.mark.req("G7")
@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        pytest.param(Evidence(probes=probes(40, 40), eligible=40), "failed", id="overfitted"),
        pytest.param(Evidence(probes=probes(40, 0), eligible=40), "passed", id="healthy twin"),
        pytest.param(Evidence(probes=[], eligible=0), "passed", id="nothing to reproduce"),
        pytest.param(
            Evidence(probes=probes(40, 40, base=g7.SPAN), eligible=40),
            "passed",
            id="the base knew it",
        ),
        pytest.param(
            Evidence(probes=probes(40, 3), eligible=900), "inconclusive", id="a sample in doubt"
        ),
        pytest.param(
            Evidence(probes=probes(40, 38), eligible=900, controls=probes(20, 19)),
            "inconclusive",
            id="rows that were not trained on come out alike",
        ),
        pytest.param(
            Evidence(probes=probes(40, 38), eligible=900, controls=probes(20, 1)),
            "failed",
            id="rows that were not trained on do not",
        ),
    ],
)
def test_reproduced_records_are_judged_beyond_base_and_controls(
    seen: Evidence, verdict: str
) -> None:
    judged = judge(seen)
    assert judged.verdict == verdict
    assert (judged.remediation == "redact") is (verdict == "failed")
    assert "no canaries" in judged.summary


@pytest.mark.req("G7")
def test_one_leaked_value_fails() -> None:
    leak = Probe(row="r", candidate_span=2, base_span=0, leaked=("EMAIL",), output="a@b.org")
    judged = judge(Evidence(probes=[*probes(39, 0), leak], eligible=40))
    assert judged.verdict == "failed"
    assert judged.changed[0].item == "r"
    assert "EMAIL" in judged.summary


@pytest.mark.req("G7")
def test_exposed_canaries_fail_and_ordinary_ones_pass() -> None:
    top = [Rank(canary=i, rank=1, references=31) for i in range(4)]
    plain = [Rank(canary=i, rank=9 + i, references=31) for i in range(4)]
    assert top[0].exposure_bits == 5.0
    failed, passed = (judge(Evidence(probes=[], eligible=0, ranks=r)) for r in (top, plain))
    assert (failed.verdict, passed.verdict) == ("failed", "passed")
    assert {m.name: m.value for m in failed.measurements}["canary_exposure_bits"] == 5.0


@pytest.mark.req("G7")
@given(st.lists(st.integers(1, 64), min_size=1, max_size=8))
def test_canary_p_is_fishers(ranks: list[int]) -> None:
    ours = g7.canary_p([Rank(canary=i, rank=r, references=63) for i, r in enumerate(ranks)])
    theirs = stats.combine_pvalues([r / 64 for r in ranks], method="fisher").pvalue
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)


@pytest.mark.req("G13")
def test_unmemorised_canaries_raise_no_more_alarms_than_stated() -> None:
    draw = random.Random(1)
    alarms = sum(
        g7.canary_p([Rank(canary=i, rank=draw.randint(1, 32), references=31) for i in range(4)])
        < 1 - g7.CANARY_LEVEL
        for _ in range(2000)
    )
    assert stats.binomtest(alarms, 2000, 0.01, alternative="greater").pvalue > 0.01
