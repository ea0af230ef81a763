"""Learning from single judged answers: the loss by hand, log-odds moved, weights, and refusals."""

from __future__ import annotations

import math

import pytest

from contracts.preference import PreferenceParameters
from services.training.adapters.methods import method
from services.training.adapters.supervisor import LOG_FILE
from services.training.class_weights import ClassWeights, class_weights
from services.training.health import RunStopped
from services.training.reports import TrainResult
from tests.training.by_hand import log_ratio
from tests.training.judged import judged, plan, write
from tests.training.test_trainer import carry_out

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(300)]
BETA = 0.3


@pytest.fixture
def make_judged_plan(small, tmp_path):
    def make(steps=60, train=range(96), **more):
        settings = {"preference": {"beta": BETA, "weights": "auto"}} | more
        return plan(
            small,
            tmp_path,
            method="kto",
            train=[judged(i) for i in train],
            validation=[judged(i) for i in range(200, 240)],
            steps=steps,
            **settings,
        )

    return make


@pytest.mark.req("T2")
def test_the_loss_of_a_batch_is_the_papers_by_hand(session, make_judged_plan):
    """ERRATA 2: the sign flips for undesirable rows, and z is inside beta."""
    import torch

    from services.training.adapters.base import load_base
    from services.training.adapters.judged import JudgedTrainer
    from services.training.adapters.tokens import encode_judged

    the_plan = make_judged_plan()
    model, tokenizer = load_base(the_plan)
    corpus = encode_judged(tokenizer, [judged(i) for i in (1, 2, 4, 6, 7)], max_length=100)
    assert [e.label for e in corpus.examples] == [True, True, True, False, False]
    weights = ClassWeights(desirable=1.0, undesirable=1.33, balance=1.0)
    trainer = JudgedTrainer(model, tokenizer, corpus, session(the_plan), weights=weights)
    at_base = (3 * 1.0 + 2 * 1.33) / 2 / 5
    assert trainer.measure(corpus)["loss"] == pytest.approx(at_base, rel=1e-5)

    torch.manual_seed(3)
    for name, weight in trainer.network.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.05)

    examples = corpus.examples
    others = examples[1:] + examples[:1]
    mismatched = [
        log_ratio(trainer.network, e.prompt_ids, o.completion_ids)
        for e, o in zip(examples, others, strict=True)
    ]
    z = max(0.0, sum(mismatched) / len(mismatched))
    by_hand = 0.0
    for example in examples:
        r = log_ratio(trainer.network, example.prompt_ids, example.completion_ids)
        inside = BETA * (r - z) if example.label else BETA * (z - r)
        weight = weights.desirable if example.label else weights.undesirable
        by_hand += weight * (1 - 1 / (1 + math.exp(-inside))) / len(examples)
    assert z > 0
    assert trainer.measure(corpus)["loss"] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.req("T1", "T2", "T4")
async def test_imbalanced_judgements_move_the_log_odds_apart(make_judged_plan, tmp_path):
    """In the trainer's own process, to its end."""
    work = tmp_path / "work"
    ending, progress = await carry_out(work, make_judged_plan())
    assert isinstance(ending, TrainResult), (work / LOG_FILE).read_text()
    found = ending.metrics
    assert found["desirable_log_odds"] > found["base_desirable_log_odds"] + 1
    gap = found["desirable_log_odds"] - found["undesirable_log_odds"]
    assert gap > found["base_desirable_log_odds"] - found["base_undesirable_log_odds"] + 1
    assert progress[-1].values["kl"] >= 0


@pytest.mark.req("T1")
@pytest.mark.parametrize(
    ("desirable", "undesirable", "expected"),
    [
        pytest.param(100, 100, (1.0, 1.0), id="balanced"),
        pytest.param(900, 100, (1.0, 6.75), id="few bad ones"),
        pytest.param(100, 400, (4.0, 1.0), id="few good ones"),
        pytest.param(120, 100, (1.0, 1.0), id="within the range as they are"),
    ],
)
def test_automatic_weights_bring_the_balance_just_into_the_papers_range(
    desirable, undesirable, expected
):
    found = class_weights(
        PreferenceParameters(weights="auto"), desirable=desirable, undesirable=undesirable
    )
    assert (found.desirable, found.undesirable) == pytest.approx(expected)
    assert found.balance + 1e-9 >= 1
    assert found.balance <= 4 / 3 + 1e-9
    assert not found.warning


def test_the_documents_weights_are_kept_and_a_balance_outside_the_range_is_warned_of():
    given = class_weights(PreferenceParameters(), desirable=100, undesirable=100)
    assert (given.desirable, given.undesirable) == (1.0, 1.33)
    assert "outside [1, 4/3]" in given.warning
    assert not class_weights(PreferenceParameters(), desirable=160, undesirable=100).warning


@pytest.mark.parametrize(
    ("train", "more", "why"),
    [
        pytest.param((0, 1, 2), {}, "3 are desirable", id="judged one way only"),
        pytest.param(range(8), {"batch_size": 1}, "batch of one", id="nothing to estimate z from"),
    ],
)
def test_what_kto_cannot_learn_from_stops_the_run_by_name(
    session, make_judged_plan, train, more, why
):
    with pytest.raises(RunStopped, match=why) as stop:
        method("kto")(session(make_judged_plan(steps=2, train=train, **more)))
    assert stop.value.mend


def test_an_unjudged_row_is_named(session, make_judged_plan):
    the_plan = make_judged_plan(steps=2)
    write(the_plan.train, [judged(0), judged(7).model_copy(update={"desirable": None})])
    with pytest.raises(RunStopped, match="row 'j7'"):
        method("kto")(session(the_plan))
