"""Learning from pairs: the losses by hand, the held-out accuracy, resume, and refusals by row."""

from __future__ import annotations

import asyncio
import math

import pytest

from services.training.adapters.methods import method
from services.training.adapters.supervisor import LOG_FILE
from services.training.adapters.tokens import encode_pairs
from services.training.health import RunStopped
from services.training.reports import TrainFailure, TrainResult
from tests.training.by_hand import log_ratio
from tests.training.judged import pair, plan
from tests.training.test_lora import adapter_of
from tests.training.test_trainer import carry_out, trainer_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]
BETA = 0.3


def logistic(h: float, _per_token: float) -> float:
    """-log sigmoid(beta h)."""
    return math.log1p(math.exp(-BETA * h))


def squared(_h: float, per_token: float) -> float:
    """(h - 1 / (2 beta))^2, h averaged per token: no beta on h (ERRATA 3)."""
    return (per_token - 1 / (2 * BETA)) ** 2


LOSSES = {
    "dpo": ("sigmoid", logistic, math.log(2)),
    "ipo": ("ipo", squared, 1 / (2 * BETA) ** 2),
}
"""Method → TRL's loss, the formula by hand, and its value where the adapter is the base."""


@pytest.fixture
def make_pairs_plan(small, tmp_path):
    def make(name, steps=60, train=range(96), **more):
        return plan(
            small,
            tmp_path,
            method=name,
            train=[pair(i) for i in train],
            validation=[pair(i) for i in range(200, 240)],
            steps=steps,
            preference={"beta": BETA},
            **more,
        )

    return make


@pytest.mark.req("T2")
@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_pair_is_the_papers_by_hand(session, make_pairs_plan, small, name):
    """Log-ratios from a plain PEFT model's logits, token by token; the formula in plain floats."""
    import torch

    from services.training.adapters.base import load_base
    from services.training.adapters.pairs import PairTrainer

    loss, formula, at_base = LOSSES[name]
    the_plan = make_pairs_plan(name)
    model, tokenizer = load_base(the_plan)
    rows = [pair(0), pair(1), pair(4).model_copy(update={"target": "hello"})]
    pairs = encode_pairs(tokenizer, rows, max_length=100)
    trainer = PairTrainer(model, tokenizer, pairs, session(the_plan), loss=loss)
    assert trainer.measure(pairs)["loss"] == pytest.approx(at_base, rel=1e-5)

    torch.manual_seed(1)
    for parameter_name, weight in trainer.network.named_parameters():
        if "lora_B" in parameter_name:
            weight.data.normal_(std=0.05)

    by_hand = []
    for example in pairs.examples:
        ratios = []
        for answer in (example.chosen_ids, example.rejected_ids):
            ratio = log_ratio(trainer.network, example.prompt_ids, answer)
            ratios.append((ratio, ratio / len(answer)))
        (chosen, chosen_mean), (rejected, rejected_mean) = ratios
        assert abs(chosen - rejected) > 0.01
        by_hand.append(formula(chosen - rejected, chosen_mean - rejected_mean))
    assert trainer.measure(pairs)["loss"] == pytest.approx(sum(by_hand) / 3, rel=1e-4)


@pytest.mark.req("T1", "T2", "T4")
@pytest.mark.parametrize("name", LOSSES)
def test_held_out_pairs_are_ranked_better_than_the_base_ranks_them(session, make_pairs_plan, name):
    work = session(make_pairs_plan(name))
    trained = method(name)(work)
    assert trained.metrics["base_preference_accuracy"] < 0.7
    assert trained.metrics["preference_accuracy"] > 0.9
    assert trained.validation_loss < work.channel.steps[0].loss
    first, last = work.channel.steps[0].metrics, work.channel.steps[-1].metrics
    assert last["reward_margin"] > first["reward_margin"]
    assert {"reward_accuracy", "chosen_log_prob", "rejected_log_prob"} <= last.keys()


@pytest.mark.req("T4", "T5")
async def test_a_killed_run_on_pairs_resumes_to_the_very_same_weights(make_pairs_plan, tmp_path):
    the_plan = make_pairs_plan("dpo", steps=12, checkpoint_every=3)
    (tmp_path / "whole").mkdir()
    whole, progress = await carry_out(tmp_path / "whole", the_plan)
    assert isinstance(whole, TrainResult), (tmp_path / "whole" / LOG_FILE).read_text()
    assert progress[-1].values["reward_accuracy"] >= 0
    assert whole.metrics.keys() == {"preference_accuracy", "base_preference_accuracy"}

    killed = tmp_path / "killed"

    async def kill() -> None:
        trainer_of(killed).kill()

    ending, _ = await carry_out(killed, the_plan, at_step=5, act=kill)
    assert isinstance(ending, TrainFailure)
    resumed, _ = await carry_out(killed, the_plan)
    assert isinstance(resumed, TrainResult)
    assert resumed.resumed_from >= 3
    assert resumed.weights == whole.weights


@pytest.mark.req("T4")
async def test_a_cancelled_run_on_pairs_keeps_its_checkpoint(make_pairs_plan, tmp_path):
    cancelled = asyncio.Event()

    async def cancel() -> None:
        cancelled.set()

    the_plan = make_pairs_plan("dpo", steps=4000, checkpoint_every=4000)
    work = tmp_path / "work"
    ending, _ = await carry_out(work, the_plan, at_step=2, act=cancel, cancelled=cancelled)
    assert isinstance(ending, TrainFailure)
    assert ending.reason == "cancelled"
    assert list((work / "checkpoints").glob("checkpoint-*/sealed.json"))


@pytest.mark.req("T5")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_pairs_twice_give_the_same_adapter(session, make_pairs_plan, precision):
    the_plan = make_pairs_plan("dpo", steps=4, precision=precision)
    first, second = (method("dpo")(session(the_plan, name)) for name in ("one", "two"))
    assert adapter_of(first) == adapter_of(second)


def test_rows_that_are_no_pairs_stop_the_run_and_the_row_is_named(session, make_pairs_plan):
    the_plan = make_pairs_plan("dpo", steps=2)
    rows = [pair(0), pair(1).model_copy(update={"rejected": None})]
    the_plan.train.write_text("".join(r.model_dump_json() + "\n" for r in rows))
    with pytest.raises(RunStopped, match="row 'p1'") as stop:
        method("dpo")(session(the_plan))
    assert stop.value.reason == "dataset_missing"
    assert "rejected" in stop.value.mend


def test_a_pair_of_which_one_answer_is_too_long_is_left_out_whole(session, make_pairs_plan):
    the_plan = make_pairs_plan("dpo", steps=2, max_length=48)
    rows = [pair(i) for i in range(8)]
    rows[3] = rows[3].model_copy(update={"rejected": "bye " * 60})
    the_plan.train.write_text("".join(r.model_dump_json() + "\n" for r in rows))
    trained = method("dpo")(session(the_plan))
    assert (trained.rows, trained.rows_too_long) == (7, 1)
