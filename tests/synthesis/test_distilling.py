"""Asking a teacher for its student: requests as they are, traces verified, nothing paid twice."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contracts.data import Message, Row
from contracts.governance import Teacher
from contracts.job import Behaviour
from services.synthesis.adapters.journal import Journal
from services.synthesis.distilling import Lesson, Verification, distil, read_trace
from services.synthesis.filters import Rejected
from services.synthesis.generation import Synthesized
from services.synthesis.pace import Spending
from services.synthesis.teachers import Completion, Seat
from shared.errors import PeerUnavailable
from shared.scoring import resolve

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
MARKER = "Answer:"
REASONED = Lesson(
    verification=Verification(
        marker=MARKER,
        scorer=resolve(
            Behaviour(description="d", scorer="exact_match", target=0.5, answer_marker=MARKER)
        ),
    )
)


def sums(count: int, **more: Any) -> list[Row]:
    return [
        Row.model_validate(
            {
                "id": f"s{i}",
                "messages": [{"role": "user", "content": f"What is {i} and 1?"}],
                "target": str(i + 1),
                "expected": str(i + 1),
            }
            | more
        )
        for i in range(count)
    ]


class Scripted:
    """A teacher that says what it is told, and counts what it is paid for."""

    def __init__(self, *said: str | Completion | None, dies_after: int = 10**9) -> None:
        self._said, self._dies_after = said, dies_after
        self.heard: list[tuple[Message, ...]] = []

    async def complete(self, messages: Any, **_: Any) -> Completion:
        if len(self.heard) >= self._dies_after:
            raise PeerUnavailable("away", mend="wait")
        self.heard.append(tuple(messages))
        said = self._said[(len(self.heard) - 1) % len(self._said)]
        assert said is not None
        return said if isinstance(said, Completion) else Completion(said, "v9", tokens=100)


async def learn(
    seeds: list[Row], asked: Seat, path: Path, lesson: Lesson, **more: Any
) -> Synthesized:
    with closing(Journal(path)) as journal:
        return await distil(seeds, asked, journal, lesson, **more)


def seat(port: Scripted) -> Seat:
    return Seat(settings=Teacher(model="t", price_per_mtok=10.0), port=port)


@pytest.mark.req("T1", "S7")
async def test_the_teacher_is_shown_what_the_student_will_be_and_its_words_are_the_target(
    tmp_path: Path,
) -> None:
    port = Scripted("It is one.", "It is two!")
    seeds = sums(2, tools=[TOOL], messages=[{"role": "user", "content": "Add them."}])
    done = await learn(seeds, seat(port), tmp_path / "j", Lesson())
    ((turn,), _) = port.heard
    assert '"name": "add"' in turn.content
    assert turn.content.endswith("Request: Add them.")
    assert [row.target for row in done.rows] == ["It is one.", "It is two!"]
    first = done.rows[0]
    assert (first.messages, first.tools, first.group) == (seeds[0].messages, (TOOL,), "s0")
    assert first.origin is not None
    assert (first.origin.model, first.origin.api_version) == ("t", "v9")
    assert first.origin.seed_row == "s0"


@pytest.mark.req("T1")
@pytest.mark.parametrize(
    ("said", "kept", "reason"),
    [
        pytest.param("0 and 1 is 1.\nAnswer: 1", "0 and 1 is 1.\nAnswer: 1", None, id="right"),
        pytest.param("So.  Answer:\n 1 \n", "So.\nAnswer: 1", None, id="right, laid out anew"),
        pytest.param("No, Answer: 2? Answer: 1", "No, Answer: 2?\nAnswer: 1", None, id="the last"),
        pytest.param("0 and 1 is 2.\nAnswer: 2", None, "wrong_answer", id="wrong"),
        pytest.param("It is 1.", None, "no_final_answer", id="no marker"),
        pytest.param("It is 1. Answer:", None, "no_final_answer", id="nothing behind it"),
        pytest.param("Answer: 1", None, "no_reasoning", id="no reasoning"),
        pytest.param("  ", None, "empty", id="silence"),
        pytest.param("I'm sorry, but I cannot. Answer: 1", None, "teacher_refusal", id="refusal"),
        pytest.param(
            Completion("0 and 1 is 1. Answer: 1", "v", cut=True), None, "cut_off", id="cut off"
        ),
    ],
)
async def test_a_trace_trains_only_where_its_final_answer_is_right(
    tmp_path: Path, said: str | Completion, kept: str | None, reason: str | None
) -> None:
    done = await learn(sums(1), seat(Scripted(said)), tmp_path / "j", REASONED)
    assert [row.target for row in done.rows] == ([] if kept is None else [kept])
    assert done.rejected == ({} if reason is None else {reason: 1})
    assert [r["reason"] for r in done.records] == ([] if reason is None else [reason])


async def test_the_student_is_not_shown_how_the_teacher_was_told_to_reason(tmp_path: Path) -> None:
    port = Scripted("0 and 1 is 1. Answer: 1")
    done = await learn(sums(1), seat(port), tmp_path / "j", REASONED)
    told, asked = port.heard[0]
    assert "step by step" in told.content
    assert '"Answer:"' in told.content
    assert done.rows[0].messages == (asked,)


async def test_a_request_that_nothing_can_verify_is_not_paid_for(tmp_path: Path) -> None:
    port = Scripted("x Answer: 1")
    seeds = [*sums(1), *(s.model_copy(update={"id": "n", "expected": None}) for s in sums(1))]
    done = await learn(seeds, seat(port), tmp_path / "j", REASONED)
    assert len(port.heard) == 1
    assert done.rejected == {"unverifiable": 1}


@pytest.mark.req("S8")
async def test_an_interrupted_distillation_goes_on_and_pays_for_nothing_twice(
    tmp_path: Path,
) -> None:
    lesson = Lesson(answers_per_request=2)
    with pytest.raises(PeerUnavailable):
        await learn(sums(6), seat(Scripted("a", "b", dies_after=5)), tmp_path / "j", lesson)
    again, spending = Scripted("c", "d"), Spending()
    done = await learn(sums(6), seat(again), tmp_path / "j", lesson, spending=spending)
    assert len(again.heard) == 12 - 5
    assert done.asked == 12
    assert spending.cost == pytest.approx(12 * 100 * 10 / 1e6)
    once_more = Scripted("never asked")
    assert await learn(sums(6), seat(once_more), tmp_path / "j", lesson) == done
    assert once_more.heard == []


async def test_the_same_answer_twice_is_one_row_and_money_ends_the_asking(tmp_path: Path) -> None:
    lesson = Lesson(answers_per_request=3)
    done = await learn(sums(2), seat(Scripted("yes")), tmp_path / "j", lesson)
    assert len(done.rows) == 2
    assert done.rejected == {"repeated": 4}
    port, spending = Scripted("yes"), Spending(maximum=0.004)
    await learn(sums(9), seat(port), tmp_path / "k", lesson, spending=spending)
    assert len(port.heard) == 4


def test_a_cut_answer_is_still_cut_after_a_restart(tmp_path: Path) -> None:
    half = Completion("half", "v", 3, cut=True)
    with closing(Journal(tmp_path / "j")) as journal:
        journal.append("k", half)
    with closing(Journal(tmp_path / "j")) as journal:
        assert journal.answer("k") == half


def test_a_trace_is_split_at_its_last_marker() -> None:
    assert read_trace("a Answer: b Answer: c", MARKER) == ("a Answer: b", "c")
    assert read_trace("", MARKER) == Rejected("no_final_answer")
