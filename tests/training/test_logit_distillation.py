"""Learning a teacher's probabilities: the loss by hand, the KL to it down, and refusals."""

from __future__ import annotations

import math

import pytest

from services.training.adapters.methods import method
from services.training.adapters.student import prune_depth
from services.training.adapters.supervisor import LOG_FILE
from services.training.health import RunStopped
from services.training.reports import TrainResult
from shared.testing.tiny_model import build_tiny_llama
from tests.training.distilling import demonstration, distillation, mean_kl, plan, teach
from tests.training.test_lora import adapter_of
from tests.training.test_trainer import carry_out

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(300)]
ROWS = [demonstration(i) for i in range(96)]
HELD = [demonstration(i) for i in range(200, 232)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return teach(build_tiny_llama(tmp_path_factory.mktemp("models") / "teacher", seed=1), ROWS)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture
def make_plan_for(teacher, tmp_path):
    def make(student, *, steps=60, train=ROWS, taught_by=teacher, checkpoint_every=10, **more):
        parameters = distillation("logits", taught_by, **more)
        return plan(
            student,
            tmp_path,
            parameters,
            teacher=taught_by,
            train=train,
            validation=HELD,
            steps=steps,
            checkpoint_every=checkpoint_every,
        )

    return make


def test_softened_kl_of_two_coins_by_hand():
    """Logits (2 ln 3, 0) and (0, 0) at T = 2: KL of (3/4, 1/4) from (1/2, 1/2), times 4."""
    import torch

    from services.training.adapters.distiller import softened_kl

    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    by_hand = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert float(softened_kl(student, teacher, 2.0)) == pytest.approx(by_hand, rel=1e-5)
    padded = torch.tensor([[2 * math.log(3), 0.0, 50.0]])
    assert float(softened_kl(student, padded, 2.0)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.req("T2")
@pytest.mark.parametrize(("temperature", "share"), [(1.0, 1.0), (2.5, 0.7), (4.0, 0.0)])
def test_the_loss_of_a_batch_is_the_mix_by_hand(
    session, make_plan_for, small, teacher, temperature, share
):
    """Logits of plain forward passes, the formula in plain floats, completion tokens only."""
    import torch
    from transformers import AutoModelForCausalLM

    from services.training.adapters.base import load_base
    from services.training.adapters.distiller import DistillingTrainer
    from services.training.adapters.teacher import load_teacher
    from services.training.adapters.tokens import encode_file

    the_plan = make_plan_for(small, train=ROWS[:3], temperature=temperature, soft_share=share)
    model, tokenizer = load_base(the_plan)
    corpus = encode_file(tokenizer, the_plan.train, max_length=100)
    trainer = DistillingTrainer(
        model,
        tokenizer,
        corpus,
        session(the_plan),
        teacher=load_teacher(the_plan),
        distillation=the_plan.recipe.distillation,
    )
    rows = [{"input_ids": e.input_ids, "labels": e.labels} for e in corpus.examples]
    inputs = trainer._prepare_inputs(trainer.data_collator(rows))
    found = float(trainer.compute_loss(trainer.network, inputs).detach())

    plain = [AutoModelForCausalLM.from_pretrained(f).eval() for f in (small, teacher)]
    soft, hard, tokens = 0.0, 0.0, 0
    for example in corpus.examples:
        with torch.no_grad():
            ours, theirs = (m(torch.tensor([example.input_ids])).logits[0].double() for m in plain)
        for place, label in enumerate(example.labels):
            if label == -100:
                continue
            q = (ours[place - 1] / temperature).softmax(-1).tolist()
            p = (theirs[place - 1] / temperature).softmax(-1).tolist()
            soft += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            hard -= math.log(float(ours[place - 1].softmax(-1)[label]))
            tokens += 1
    by_hand = (share * soft + (1 - share) * hard) / tokens
    assert found == pytest.approx(by_hand, rel=1e-4)
    assert soft / tokens > 0.5


@pytest.mark.req("T1", "T2", "T4")
async def test_the_kl_to_the_teacher_falls_on_rows_not_seen(make_plan_for, small, tmp_path):
    """In the trainer's own process, to its end."""
    work = tmp_path / "work"
    ending, progress = await carry_out(work, make_plan_for(small))
    assert isinstance(ending, TrainResult), (work / LOG_FILE).read_text()
    found = ending.metrics
    assert found["kl"] < 0.5 * found["base_kl"]
    assert found["agreement"] > found["base_agreement"] + 0.1
    assert ending.validation_loss > 0
    assert found["teacher_loss"] < ending.validation_loss
    steps = [event.values for event in progress if event.message.startswith("step ")]
    assert steps[-1]["soft_loss"] < steps[0]["soft_loss"]
    assert steps[-1]["tokens_per_s"] > 0


@pytest.mark.req("T2")
def test_a_student_pruned_from_its_teacher_is_healed_by_it(
    session, make_plan_for, teacher, tmp_path
):
    student = tmp_path / "pruned"
    prune_depth(teacher, student, keep=2)
    trained = method("logit_distillation")(session(make_plan_for(student)))
    assert trained.metrics["kl"] < 0.5 * trained.metrics["base_kl"]
    assert trained.metrics["kl"] == pytest.approx(
        mean_kl(teacher, trained.model.eval(), HELD), rel=1e-3
    )


@pytest.mark.req("T5")
def test_the_same_distillation_twice_gives_the_same_adapter(session, make_plan_for, small):
    the_plan = make_plan_for(small, steps=3)
    first, second = (
        method("logit_distillation")(session(the_plan, name)) for name in ("one", "two")
    )
    assert adapter_of(first) == adapter_of(second)


def test_a_teacher_of_another_vocabulary_is_refused_and_answers_are_offered(
    session, make_plan_for, base, small
):
    """`base` reads bytes; `small` has merges."""
    with pytest.raises(RunStopped, match=r"student has 400 tokens and the teacher 258") as stop:
        method("logit_distillation")(session(make_plan_for(small, taught_by=base)))
    assert stop.value.reason == "method_unavailable"
    assert "objective to sequence" in stop.value.mend


def test_a_teacher_that_is_gone_or_another_stops_the_run_by_name(
    session, make_plan_for, small, tmp_path
):
    the_plan = make_plan_for(small, steps=2)
    gone = the_plan.model_copy(update={"teacher": tmp_path / "none"})
    with pytest.raises(RunStopped, match="no checkpoint of the teacher Tiny-Teacher") as stop:
        method("logit_distillation")(session(gone))
    assert stop.value.reason == "base_missing"
    another = the_plan.model_copy(update={"teacher": small})
    with pytest.raises(RunStopped, match="is not the one the recipe names"):
        method("logit_distillation")(session(another))
