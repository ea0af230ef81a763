"""Two calibrated judges, penalties, divergence, and no vote without agreement with people."""

import json

import pytest

from contracts.data import Row
from contracts.governance import JudgePanel, Synthesis, Teacher
from services.synthesis.adapters.journal import Journal
from services.synthesis.asking import Desk
from services.synthesis.generation import Plan, generate
from services.synthesis.judging import Panel, read_vote
from services.synthesis.pace import Spending
from services.synthesis.teachers import Completion, Seat

pytestmark = pytest.mark.req("S6")


class Scripted:
    """A port that answers by a rule and counts what it is asked."""

    def __init__(self, rule) -> None:
        self.rule, self.asked = rule, []

    async def complete(self, messages, *, temperature, top_p, max_tokens, seed, key):
        self.asked.append((messages, temperature))
        return Completion(self.rule(messages[-1].content), "v1", tokens=1000)


def scores(consistency=5.0, relevance=5.0, formatting=5.0, verbosity=0.0, transitions=0.0, why=""):
    return json.dumps({
        "logical_consistency": consistency, "relevance": relevance, "formatting": formatting,
        "verbosity": verbosity, "formulaic_transitions": transitions, "rationale": why or "because",
    })  # fmt: skip


def row(i: int, answer: str, expected=None) -> Row:
    return Row(id=f"r{i}", messages=({"role": "user", "content": f"question {i}"},), target=answer,
               expected=expected)  # fmt: skip


def judge_of(model: str, rule) -> Seat:
    settings = Teacher(model=model, url=f"http://{model}", temperature=0, top_p=1,
                       override_reason="judge", price_per_mtok=2.0)  # fmt: skip
    return Seat(settings, Scripted(rule))


SETTINGS = JudgePanel(judges=({"model": "a"}, {"model": "b"}), gold="gold.jsonl")


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "j.jsonl")
    yield made
    made.close()


def panel(journal, first, second):
    desk = Desk(journal, Spending())
    return Panel(SETTINGS, [judge_of("a", first), judge_of("b", second)], desk)


def by_answer(**answers):
    def rule(text: str) -> str:
        return next(value for word, value in answers.items() if f"Answer:\n{word}" in text)

    return rule


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        pytest.param(scores(), scores(4, 4, 4), "accepted", id="at the minimum"),
        pytest.param(scores(3.9), scores(3.5), "rejected", id="below on one dimension"),
        pytest.param(scores(4.5), scores(3.9), "diverged", id="votes differ"),
        pytest.param(scores(5, 5, 5), scores(5, 5, 4, verbosity=0, transitions=0), "accepted",
                     id="one point apart"),
        pytest.param(scores(2), scores(3.5), "diverged", id="further apart than allowed"),
        pytest.param(scores(verbosity=1, transitions=1), scores(verbosity=1.5), "rejected",
                     id="penalties count"),
        pytest.param(scores(), "fine by me", "unreadable", id="no scores"),
    ],
)  # fmt: skip
async def test_a_ruling_follows_from_both_votes(journal, first, second, verdict):
    [ruling] = await panel(journal, lambda _: first, lambda _: second).rule([row(1, "x")])
    assert ruling.verdict == verdict


@pytest.mark.parametrize("text", ["", "{}", scores(6), scores(verbosity=3), '{"relevance": "no"}'])
def test_scores_out_of_range_or_missing_are_no_vote(text):
    assert read_vote("a", Completion(text, "v")) is None
    assert read_vote("a", None) is None


async def test_a_judge_that_disagrees_with_people_has_no_vote(journal):
    gold = [row(i, "good" if i % 2 else "bad", {"accept": bool(i % 2)}) for i in range(20)]
    fair = by_answer(good=scores(), bad=scores(2))
    first, second = await panel(journal, fair, lambda _: scores()).calibrate(gold)
    assert (first.kappa, first.may_vote, first.items) == (1.0, True, 20)
    assert (second.kappa, second.may_vote) == (0.0, False)


async def test_rulings_are_kept_with_the_row_and_diverged_rows_await_a_person(journal):
    seeds = [row(i, "seed") for i in range(3)]
    answers = iter(["good one", "bad two", "odd three"])
    teacher = Seat(Teacher(model="t", price_per_mtok=10.0), Scripted(lambda _: next(answers)))
    rule = by_answer(good=scores(why="clear"), bad=scores(2), odd=scores())
    other = by_answer(good=scores(4.5), bad=scores(2), odd=scores(3))
    spending = Spending()
    judges = Panel(SETTINGS, [judge_of("a", rule), judge_of("b", other)], Desk(journal, spending))
    plan = Plan(rows=9, attempts_per_seed=1, produces="answers")
    done = await generate(seeds, [teacher], journal, plan, panel=judges, spending=spending)
    [kept] = done.rows
    assert kept.target == "good one"
    assert [(v["judge"], v["rationale"]) for v in kept.meta["judges"]] == [
        ("a", "clear"), ("b", "because")
    ]  # fmt: skip
    assert kept.meta["judges"][0]["scores"]["relevance"] == 5.0
    assert done.rejected == {"judges_diverged": 1, "judges_rejected": 1}
    assert done.diverged == 1
    [waiting] = [r for r in done.records if r["verdict"] == "diverged"]
    assert waiting["content"]["target"] == "odd three"
    assert len(waiting["votes"]) == 2
    # three answers at 10 a million and six votes at 2 a million tokens, 1,000 tokens each
    assert spending.cost == pytest.approx(3 * 0.01 + 6 * 0.002)
    assert all(t == 0 for seat in judges._seats for _, t in seat.port.asked)


def test_a_judge_is_no_teacher_and_two_judges_are_two_models():
    two = [{"model": "a"}, {"model": "b"}]
    with pytest.raises(ValueError, match="judge itself"):
        Synthesis(rows=1, teachers=[{"model": "a"}], panel={"judges": two, "gold": "g"})
    with pytest.raises(ValueError, match="one model"):
        JudgePanel(judges=[two[0], two[0]], gold="g")
