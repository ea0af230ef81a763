"""PPO end to end on a small transformer: reward up, KL bounded, resume, and its named endings."""

from __future__ import annotations

import pytest

from services.training.adapters.checkpoints import newest_sealed, step_of
from services.training.adapters.methods import method
from services.training.adapters.session import Cancelled
from services.training.health import RunStopped
from services.training.reports import TrainFailure, TrainResult
from shared.testing.tiny_model import build_tiny_llama
from tests.training.judged import ANSWERS, pair, plan
from tests.training.test_lora import adapter_of
from tests.training.test_trainer import carry_out, trainer_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]
PAIRS = [pair(i) for i in range(96)]


@pytest.fixture(scope="module")
def undecided(tmp_path_factory):
    """A tiny Llama that gives either answer to anything: what is right it has yet to learn."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.training.adapters.tokens import encode

    folder = build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    answers = ANSWERS["morning"]
    rows = [pair(i).model_copy(update={"target": answers[i // 2 % 2]}) for i in range(64)]
    examples = [encode(tokenizer, row) for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(100):
        batch = [examples[(step * 16 + i) % len(examples)] for i in range(16)]
        width = max(len(e.input_ids) for e in batch)
        ids = torch.tensor(
            [e.input_ids + [tokenizer.pad_token_id] * (width - len(e.input_ids)) for e in batch]
        )
        labels = torch.tensor([e.labels + [-100] * (width - len(e.labels)) for e in batch])
        mask = torch.tensor([[1] * len(e.labels) + [0] * (width - len(e.labels)) for e in batch])
        optimizer.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def make_ppo_plan(undecided, tmp_path):
    def make(steps=24, beta=0.05, ppo=None, train=PAIRS, **more):
        settings = {"learning_rate": 5e-3, "batch_size": 16, "checkpoint_every": 5}
        return plan(
            undecided,
            tmp_path,
            method="ppo",
            train=train,
            validation=[pair(i) for i in range(200, 232)],
            steps=steps,
            preference={
                "beta": beta,
                "ppo": {"reward_steps": 40, "answer_tokens": 16, "passes": 2} | (ppo or {}),
            },
            **(settings | more),
        )

    return make


@pytest.mark.req("T1", "T2", "T4")
def test_the_reward_rises_and_the_kl_stays_bounded(session, make_ppo_plan):
    import torch

    work = session(make_ppo_plan())
    trained = method("ppo")(work)
    measured = trained.metrics
    assert measured["reward_model_accuracy"] > 0.9
    assert measured["reward"] > measured["base_reward"] + 0.3
    assert 0 < measured["kl"] < 5
    first, last = work.channel.steps[0].metrics, work.channel.steps[-1].metrics
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert last["reward"] > first["reward"]
    assert set(trained.model.peft_config) == {"default"}
    assert torch.isfinite(torch.tensor(list(last.values()))).all()
    assert adapter_of(trained) == adapter_of(method("ppo")(session(work.plan, "again")))


@pytest.mark.req("T4", "T5")
async def test_a_killed_run_resumes_to_the_very_same_weights(make_ppo_plan, tmp_path):
    the_plan = make_ppo_plan(steps=6, checkpoint_every=2, ppo={"reward_steps": 4})
    whole, progress = await carry_out(tmp_path / "whole", the_plan)
    assert isinstance(whole, TrainResult)
    assert progress[-1].values["kl"] >= 0
    assert whole.metrics.keys() == {"reward", "base_reward", "kl", "reward_model_accuracy"}

    killed = tmp_path / "killed"

    async def kill() -> None:
        trainer_of(killed).kill()

    ending, _ = await carry_out(killed, the_plan, at_step=3, act=kill)
    assert isinstance(ending, TrainFailure)
    resumed, _ = await carry_out(killed, the_plan)
    assert isinstance(resumed, TrainResult)
    assert resumed.resumed_from >= 2
    assert resumed.weights == whole.weights


@pytest.mark.req("T4")
def test_a_cancelled_run_keeps_its_checkpoint(session, make_ppo_plan):
    from dataclasses import replace

    work = session(make_ppo_plan(steps=50, checkpoint_every=50, ppo={"reward_steps": 2}))
    work = replace(work, is_cancelled=lambda: work.channel.step >= 3)
    with pytest.raises(Cancelled):
        method("ppo")(work)
    assert step_of(newest_sealed(work.checkpoints)) == work.channel.step == 3


HELLO = {"target": "hello there", "rejected": "good bye"}
ENDINGS = [
    pytest.param(
        {"beta": 1e-9, "ppo": {"maximum_kl": 0.5}}, "reward_hacking", id="free to leave the base"
    ),
    pytest.param(
        {"beta": 1e-9, "learning_rate": 0.2, "ppo": {"maximum_kl": 1e9}},
        "reward_hacking",
        id="it finds an error of the reward model, and its answers shrink",
    ),
    pytest.param(
        {
            "beta": 1e-9,
            "learning_rate": 1e-2,
            "ppo": {"passes": 4},
            "train": [pair(i).model_copy(update=HELLO) for i in range(96)],
        },
        "policy_collapse",
        id="it leaves the base for nothing",
    ),
    pytest.param(
        {"learning_rate": 1e30, "ppo": {"reward_steps": 1}}, "not_a_number", id="far too fast"
    ),
]


@pytest.mark.req("T3")
@pytest.mark.parametrize(("change", "reason"), ENDINGS)
def test_a_run_that_is_lost_stops_by_its_name(session, make_ppo_plan, change, reason):
    work = session(make_ppo_plan(**({"steps": 60} | change)))
    with pytest.raises(RunStopped) as stop:
        method("ppo")(work)
    assert stop.value.reason == reason
    assert stop.value.mend


@pytest.mark.req("T6")
def test_several_processes_are_refused_by_name(session, make_ppo_plan, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunStopped, match="one process"):
        method("ppo")(session(make_ppo_plan()))
