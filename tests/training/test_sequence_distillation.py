"""Learning a teacher's answers and its verified reasoning: the loss by hand, the KL down."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contracts.data import Row
from contracts.governance import Teacher
from contracts.job import Behaviour
from services.synthesis.adapters.journal import Journal
from services.synthesis.distilling import Lesson, Verification, distil
from services.synthesis.generation import Synthesized
from services.synthesis.teachers import Completion, Seat
from services.training.adapters.methods import method
from services.training.health import RunStopped
from shared.scoring import resolve
from shared.testing.tiny_model import build_tiny_llama
from tests.training.distilling import (
    answer_of,
    demonstration,
    distillation,
    mean_kl,
    plan,
    teach,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(300)]
MARKER = "Answer:"
SEEDS = [demonstration(i) for i in range(48)]
HELD = [demonstration(i) for i in range(200, 224)]


def lesson(objective: str) -> Lesson:
    if objective == "sequence":
        return Lesson(max_tokens=40)
    behaviour = Behaviour(description="d", scorer="exact_match", target=0.5, answer_marker=MARKER)
    verification = Verification(marker=MARKER, scorer=resolve(behaviour))
    return Lesson(max_tokens=40, verification=verification)


def reasoned(row: Row) -> Row:
    """The row with the time of day named before its answer."""
    time = row.messages[-1].content.split()[0]
    return row.model_copy(update={"target": f"{time}\n{MARKER} {row.target}"})


class Checkpoint:
    """A teacher's port to a checkpoint in this process."""

    def __init__(self, folder: Path) -> None:
        self._answer = answer_of(folder)
        self.heard: list[Any] = []

    async def complete(self, messages: Any, *, seed: int, **_: Any) -> Completion:
        self.heard.append(messages)
        return Completion(self._answer([m.model_dump() for m in messages], seed), "v1")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "student")


async def learned(teacher: Path, objective: str, folder: Path) -> tuple[Synthesized, Checkpoint]:
    port = Checkpoint(teacher)
    seat = Seat(settings=Teacher(model="tiny-teacher"), port=port)
    with closing(Journal(folder / "journal")) as journal:
        return await distil(SEEDS, seat, journal, lesson(objective)), port


@pytest.mark.req("T1", "T2")
@pytest.mark.parametrize("objective", ["sequence", "reasoning"])
async def test_learning_what_a_teacher_says_lowers_the_kl_to_it_on_requests_not_seen(
    session, small, tmp_path, objective
):
    """The teacher is a small transformer that has learned the task; its answers are sampled."""
    import torch
    from transformers import AutoModelForCausalLM

    if objective == "sequence":
        asked, held = SEEDS, HELD
    else:
        asked, held = [reasoned(r) for r in SEEDS], [reasoned(r) for r in HELD]
    told = await _as_asked(asked, objective, tmp_path)
    teacher = teach(build_tiny_llama(tmp_path / "teacher", seed=1), told)
    made, _ = await learned(teacher, objective, tmp_path)
    assert len(made.rows) >= 30
    if objective == "reasoning":
        assert all(r.target.endswith(f"{MARKER} {r.expected}") for r in made.rows)
        assert len(made.rows) + sum(made.rejected.values()) == len(SEEDS)

    shown = await _as_asked(held, objective, tmp_path)
    before = mean_kl(teacher, AutoModelForCausalLM.from_pretrained(small).eval(), held, shown)
    the_plan = plan(
        small,
        tmp_path,
        distillation(objective, None),
        train=list(made.rows),
        validation=held[:4],
        steps=50,
    )
    trained = method(the_plan.recipe.method)(session(the_plan))
    trained.model.eval()
    assert mean_kl(teacher, trained.model, held, shown) < 0.5 * before
    assert trained.metrics["teacher_rows"] == len(made.rows)

    by_hand, tokens = 0.0, 0
    for row in held[:4]:
        ids, answer = _ids(trained.tokenizer, row)
        with torch.no_grad():
            logits = trained.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        for place in range(len(ids) - answer, len(ids)):
            by_hand -= float(logits[place - 1, ids[place]])
            tokens += 1
    assert trained.validation_loss == pytest.approx(by_hand / tokens, rel=1e-3)


async def _as_asked(rows: list[Row], objective: str, folder: Path) -> list[Row]:
    """The rows with the turns that the teacher is sent for them."""
    heard: list[Any] = []

    class Silent:
        async def complete(self, messages: Any, **_: Any) -> Completion:
            heard.append(messages)
            return Completion("", "v1")

    seat = Seat(settings=Teacher(model="silent"), port=Silent())
    with closing(Journal(folder / f"asked-{rows[0].id}")) as journal:
        await distil(rows, seat, journal, lesson(objective))
    return [r.model_copy(update={"messages": m}) for r, m in zip(rows, heard, strict=True)]


def _ids(tokenizer: Any, row: Row) -> tuple[list[int], int]:
    from services.training.adapters.tokens import encode

    example = encode(tokenizer, row)
    return example.input_ids, sum(label != -100 for label in example.labels)


def test_a_dataset_that_no_teacher_wrote_stops_the_run_by_name(session, small, tmp_path):
    the_plan = plan(
        small, tmp_path, distillation("sequence", None), train=SEEDS, validation=HELD, steps=2
    )
    with pytest.raises(RunStopped, match="no row of the dataset was written by the teacher"):
        method("sequence_distillation")(session(the_plan))
